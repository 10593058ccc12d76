"""Organisation roles: Django groups, one per person.

admin: everything. finance: all spend, sets budgets, no prompts, no changes to supply or keys.
developer: the keys and usage of their own teams.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase

from gateway_admin.accounts.models import User


class Role(StrEnum):
    ADMIN = "admin"
    FINANCE = "finance"
    DEVELOPER = "developer"


def role_of(user: Any) -> Role | None:
    """The person's role; remembered on the instance. None: anonymous or inactive."""
    if not isinstance(user, User) or not user.is_active:
        return None
    remembered: Role | None = getattr(user, "_gateway_role", None)
    if remembered is None:
        names = set(user.groups.values_list("name", flat=True))
        remembered = next((role for role in Role if role in names), Role.DEVELOPER)
        if user.is_superuser:
            remembered = Role.ADMIN
        user._gateway_role = remembered  # type: ignore[attr-defined]
    return remembered


def is_admin(user: Any) -> bool:
    return role_of(user) is Role.ADMIN


def sees_all_spend(user: Any) -> bool:
    return role_of(user) in {Role.ADMIN, Role.FINANCE}


View = Callable[..., HttpResponseBase]


def requires(*roles: Role) -> Callable[[View], View]:
    """Let a view be called by these roles only; everybody else gets 403."""

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if role_of(request.user) not in roles:
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return checked

    return decorate
