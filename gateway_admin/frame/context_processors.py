"""What `base.html` needs on every page, computed only when the template asks for it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject, cached_property

from gateway_admin.accounts.models import Organisation
from gateway_admin.accounts.roles import Role, role_of
from gateway_admin.catalog.models import Environment

from . import navigation


class Frame:
    """The surroundings of one page; each property is evaluated at most once."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def is_signed_in(self) -> bool:
        user = getattr(self._request, "user", None)
        return bool(user and user.is_authenticated)

    @cached_property
    def role(self) -> Role | None:
        return role_of(self._request.user) if self.is_signed_in else None

    @cached_property
    def groups(self) -> list[tuple[str, list[navigation.Link]]]:
        """Sidebar groups that this person may open."""
        return navigation.links_for(self.role, path=self._request.path)

    @cached_property
    def environment(self) -> Environment | None:
        return getattr(self._request, "environment", None)

    @cached_property
    def environments(self) -> list[Environment]:
        """All environments, from the query that found the current one."""
        return list(getattr(self._request, "environments", ()))

    @cached_property
    def organisation(self) -> Organisation | None:
        found: Organisation | None = getattr(self._request, "organisation", None)
        return found

    @cached_property
    def is_demo(self) -> bool:
        return self.organisation is not None and self.organisation.demo_since is not None

    @cached_property
    def zone(self) -> str:
        """Name of the zone in which times on this page are written."""
        return timezone.get_current_timezone_name()

    @cached_property
    def pending_url(self) -> str:
        """Address of the fragment with the number of unpublished changes, "" where not allowed."""
        if self.role != Role.ADMIN:
            return ""
        try:
            return reverse("fleet:pending-count")
        except NoReverseMatch:
            return ""


def frame(request: HttpRequest) -> dict[str, Any]:
    """`frame` in every template; lazy, so fragments and signed-out pages run no queries."""
    return {"frame": SimpleLazyObject(lambda: Frame(request))}
