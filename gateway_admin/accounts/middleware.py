"""Pages are for people who are signed in; machines have their own authentication."""

from collections.abc import Callable
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url

from gateway_admin.accounts import origin

OPEN_PREFIXES = ("/account/", "/setup/", "/static/", "/fleet/v1/", "/api/v1/")
OPEN_PATHS = {"/livez", "/readyz", "/metrics", "/favicon.ico", "/robots.txt"}


class LoginRequiredMiddleware:
    """Send strangers to the login page and back afterwards; htmx gets a full redirect."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if self._is_open(request.path) or request.user.is_authenticated:
            return self.get_response(request)
        login = resolve_url(settings.LOGIN_URL)
        if request.headers.get("HX-Request"):
            return HttpResponse(status=401, headers={"HX-Redirect": login})
        return HttpResponseRedirect(f"{login}?{urlencode({'next': request.get_full_path()})}")

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


class OriginMiddleware:
    """Let audit rows written during a request carry the client's address."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with origin.of_request(request):
            return self.get_response(request)
