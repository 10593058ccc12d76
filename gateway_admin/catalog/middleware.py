"""Which environment a page is about: the URL, else the session, else the last of the list."""

from collections.abc import Callable, Iterable

from django.http import HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject

from gateway_admin.catalog.models import Environment


class EnvironmentMiddleware:
    """Set `request.environments` and `request.environment`, both lazy, from one query.

    `?environment=<slug>` wins and is remembered.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        environments = SimpleLazyObject(lambda: list(Environment.objects.all()))
        request.environments = environments  # type: ignore[attr-defined]
        request.environment = SimpleLazyObject(  # type: ignore[attr-defined]
            lambda: current_environment(request, environments)
        )
        return self.get_response(request)


def current_environment(request: HttpRequest, found: Iterable[Environment]) -> Environment:
    """The chosen one of the environments; prod for whoever chose none."""
    environments = {environment.slug: environment for environment in found}
    asked = request.GET.get("environment")
    if asked in environments and asked != request.session.get("environment"):
        request.session["environment"] = asked
    chosen = environments.get(request.session.get("environment", "prod"))
    return chosen or list(environments.values())[-1]
