"""Health first; and an outage of PostgreSQL is a 503 with its reason, never a stack trace."""

from collections.abc import Callable

import structlog
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views import defaults

from gateway_admin.supervisor.health import VIEWS

log = structlog.get_logger(__name__)
MACHINE_PREFIXES = ("/api/v1/", "/fleet/v1/")


class ReadinessMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if view := VIEWS.get(request.path_info):
            return view(request)
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.error("database_unavailable", path=request.path, error=str(error).split("\n")[0])
        return unavailable(request)


def unavailable(request: HttpRequest) -> HttpResponse:
    """503 as JSON for machines, as a page for people; it needs no database."""
    if request.path.startswith(MACHINE_PREFIXES):
        error = {
            "code": "unavailable",
            "detail": "The database is not reachable. Nothing was changed; try again shortly.",
            "attr": None,
        }
        return JsonResponse(
            {"type": "server_error", "errors": [error]}, status=503, headers={"Retry-After": "5"}
        )
    response = render(None, "503.html", status=503)
    response["Retry-After"] = "5"
    return response


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """404 as JSON for machines, as a page for people."""
    if not request.path.startswith(MACHINE_PREFIXES):
        return defaults.page_not_found(request, exception)
    error = {"code": "not_found", "detail": "There is nothing at this address.", "attr": None}
    return JsonResponse({"type": "client_error", "errors": [error]}, status=404)
