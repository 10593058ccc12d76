"""What every page shares: headers that limit what it may load, and the zone of its times."""

from __future__ import annotations

from collections.abc import Callable
from zoneinfo import ZoneInfo

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.cache import patch_vary_headers

from gateway_admin.accounts.models import Organisation

# Plotly writes style attributes; scripts come from our own files only and nothing is evaluated.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class ContentSecurityPolicyMiddleware:
    """Add the policy unless a view has set its own; keep fragments apart from pages in caches."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        patch_vary_headers(response, ["HX-Request"])
        return response


class TimeZoneMiddleware:
    """Write times of a signed-in person's pages in the organisation's zone.

    Sets `request.organisation`. Machines and strangers stay in UTC, without a query.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return self.get_response(request)
        organisation = Organisation.objects.first()
        request.organisation = organisation  # type: ignore[attr-defined]
        with timezone.override(ZoneInfo(organisation.time_zone) if organisation else None):
            return self.get_response(request)
