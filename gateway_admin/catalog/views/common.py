"""What the pages of supply share."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Model as Row
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Credential, Deployment, Environment
from gateway_admin.lib.errors import ServiceError

PAGE_SIZE = 50
T = TypeVar("T", bound=Row)


def environment_of(request: HttpRequest) -> Environment:
    """The environment the page is about."""
    return cast(Environment, cast(Any, request).environment)


def enter(request: HttpRequest, environment: Environment) -> None:
    """Make the page be about the environment that its row belongs to, and remember it."""
    if environment_of(request).pk != environment.pk:
        cast(Any, request).environment = environment
        request.session["environment"] = environment.slug


def actor_of(request: HttpRequest) -> User:
    return cast(User, request.user)


def wants_fragment(request: HttpRequest) -> bool:
    """htmx asks for the part of the page that it will swap."""
    htmx = cast(Any, request).htmx
    return bool(htmx) and not htmx.boosted and not htmx.history_restore_request


def list_page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """The page, or its `results` fragment for htmx."""
    name = f"{template}#results" if wants_fragment(request) else template
    return render(request, name, context)


def form_page(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """A page with a form; 422 when what was sent did not do."""
    status = 422 if request.method == "POST" else 200
    return render(request, template, context, status=status)


def paged(request: HttpRequest, rows: QuerySet[T]) -> tuple[Page[T], dict[str, str]]:
    """One page of rows, and the pager's parameters."""
    page = Paginator(rows, PAGE_SIZE).get_page(request.GET.get("page"))
    pager = {"next_url": "", "previous_url": "", "text": ""}
    if page.has_other_pages():
        pager["text"] = f"{page.start_index()}–{page.end_index()} of {page.paginator.count:,}"
    if page.has_next():
        pager["next_url"] = _page_url(request, page.next_page_number())
    if page.has_previous():
        pager["previous_url"] = _page_url(request, page.previous_page_number())
    return page, pager


def _page_url(request: HttpRequest, number: int) -> str:
    query = request.GET.copy()
    query["page"] = str(number)
    return f"{request.path}?{query.urlencode()}"


def filters_active(request: HttpRequest) -> bool:
    return any(value for name, value in request.GET.items() if name not in {"page", "environment"})


def act(
    request: HttpRequest, call: Callable[[], object], *, done: str, url: str, otherwise: str
) -> HttpResponse:
    """Call the service; say `done` and go to `url`, or say why not and go to `otherwise`."""
    try:
        call()
    except ServiceError as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(otherwise)
    messages.success(request, done)
    return changed(HttpResponseRedirect(url))


def switched(
    request: HttpRequest,
    row: Credential | Deployment,
    update: Callable[..., object],
    *,
    url: str,
) -> HttpResponse:
    """Enable or disable a row: `enabled` is "1" or "0"."""
    enabled = request.POST.get("enabled") == "1"
    return act(
        request,
        lambda: update(actor=actor_of(request), enabled=enabled),
        done=f"{row} {'enabled' if enabled else 'disabled'}. Draft · publish to apply.",
        url=url,
        otherwise=url,
    )


def deleted(
    request: HttpRequest,
    row: Credential | Deployment,
    delete: Callable[..., object],
    *,
    done: str,
    url: str,
    otherwise: str,
) -> HttpResponse:
    """Delete a row whose name the person typed, say `done` and go to `url`."""
    if not name_was_typed(request, row.name):
        return HttpResponseRedirect(otherwise)
    return act(
        request,
        lambda: delete(actor=actor_of(request)),
        done=done,
        url=url,
        otherwise=otherwise,
    )


def name_was_typed(request: HttpRequest, name: str) -> bool:
    """Whether the person typed the name of what is to be destroyed; says so if not."""
    if request.POST.get("confirm", "").strip() == name:
        return True
    messages.error(request, f"Nothing was deleted: type “{name}” to confirm.")
    return False


def changed(response: HttpResponse) -> HttpResponse:
    """Tell the frame that the draft changed, so that it counts anew."""
    response["HX-Trigger"] = "gw:changed"
    return response


def saved(request: HttpRequest, what: str, environment: Environment | None = None) -> None:
    """A message that says where the change stands."""
    if environment is None:
        messages.success(request, f"{what}.")
    elif environment.auto_publish:
        messages.success(request, f"{what} and published to {environment}.")
    else:
        messages.success(request, f"{what}. Draft · publish to apply.")
