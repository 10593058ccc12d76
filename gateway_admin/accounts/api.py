"""Who may call the REST API: bearer tokens and what their person's role allows."""

from typing import Any

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from gateway_admin.accounts import services
from gateway_admin.accounts.models import ApiToken, User
from gateway_admin.accounts.roles import Role, role_of


class ApiTokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer gwt-<public id>-<secret>`."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        scheme, _, presented = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = services.api_token_resolve(presented=presented.strip())
        if token is None:
            raise AuthenticationFailed("The API token is unknown, expired or revoked.")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


class RolePermission(BasePermission):
    """Reading needs a token; writing needs its write scope and a role the view names.

    A view states `write_roles`; administrators are the default.
    """

    message = "Your role or the token's scope does not allow this."

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiToken):
            return False
        read_roles = getattr(view, "read_roles", tuple(Role))
        if request.method in SAFE_METHODS:
            return role_of(request.user) in read_roles
        write_roles = getattr(view, "write_roles", (Role.ADMIN,))
        return request.auth.scope == ApiToken.Scope.WRITE and role_of(request.user) in write_roles
