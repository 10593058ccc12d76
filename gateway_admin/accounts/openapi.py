"""How the OpenAPI document names the API's authentication."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class ApiTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Known to drf-spectacular once this module is imported; `api_urls` does."""

    target_class = "gateway_admin.accounts.api.ApiTokenAuthentication"
    name = "apiToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "gwt-<public id>-<secret>",
            "description": 'An API token of a person, made on the page "API tokens".',
        }
