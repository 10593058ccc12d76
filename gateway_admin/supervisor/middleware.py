"""Health first; and an outage of PostgreSQL is a 503 with its reason, never a stack trace."""

import sys
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
        return unavailable(request, error)


def failed(request: HttpRequest) -> HttpResponse:
    """What a middleware or a view raised: who is signed in is asked of the database, too."""
    error = sys.exc_info()[1]
    if not isinstance(error, OperationalError | InterfaceError):
        return defaults.server_error(request)
    response = unavailable(request, error)
    response._has_been_logged = True  # type: ignore[attr-defined]  # else with its stack trace
    return response


def unavailable(request: HttpRequest, error: Exception) -> HttpResponse:
    """503 as JSON for machines, as a page for people; it needs no database."""
    log.error("database_unavailable", path=request.path, error=str(error).split("\n")[0])
    if request.path.startswith(MACHINE_PREFIXES):
        entry = {
            "code": "unavailable",
            "detail": "The database is not reachable. Nothing was changed; try again shortly.",
            "attr": None,
        }
        return JsonResponse(
            {"type": "server_error", "errors": [entry]}, status=503, headers={"Retry-After": "5"}
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
