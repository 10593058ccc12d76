"""Routes of the REST API, collected from the apps."""

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

import gateway_admin.accounts.openapi  # noqa: F401 (names the authentication)
from gateway_admin.accounts.organisation_api import OrganisationView

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    path("organisation/", OrganisationView.as_view(), name="api-organisation"),
    path("", include("gateway_admin.catalog.api_urls")),
    path("", include("gateway_admin.keys.api_urls")),
    path("", include("gateway_admin.fleet.api_urls")),
    path("", include("gateway_admin.usage.api_urls")),
]
