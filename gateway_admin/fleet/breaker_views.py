"""Pages of circuit breakers: the list, one breaker's card, orders by hand."""

from typing import Any, cast

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, requires
from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.catalog.queries import deployments_of
from gateway_admin.fleet import breakers
from gateway_admin.fleet.breaker_presentation import (
    breaker_view,
    breaker_views,
    most_urgent_first,
)
from gateway_admin.fleet.forms import BreakerFilter, BreakerOrderForm
from gateway_admin.lib.errors import ServiceError

admins_only = requires(Role.ADMIN)
PAGE_SIZE = 50
DONE = {
    "open": "No call goes to {} any more once each replica has heard of it: within a second.",
    "close": "Calls go to {} again once each replica has heard of it: within a second.",
    "reset": "The breaker of {} begins anew once each replica has heard of it: within a second.",
}


@require_GET
@admins_only
@never_cache
def breaker_list(request: HttpRequest) -> HttpResponse:
    """All breakers of the environment, those that are not closed first."""
    environment = cast(Environment, cast(Any, request).environment)
    form = BreakerFilter(request.GET)
    rows = _filtered(deployments_of(environment).filter(enabled=True), form)
    views = most_urgent_first(breaker_views(rows))
    if state := form.value("state"):
        views = [view for view in views if view.breaker.state == state]
    page = Paginator(views, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "environment": environment,
        "filter": form,
        "page": page,
        "pager": _pager(request, page),
        "kept_out": sum(1 for view in views if view.breaker.state == "open"),
        "filtered": bool(form.value("q") or form.value("state")),
        "refresh_url": request.get_full_path(),
        "as_of": timezone.now(),
    }
    fragment = "#results" if cast(Any, request).htmx else ""
    return render(request, f"fleet/breakers.html{fragment}", context)


def _filtered(rows: QuerySet[Deployment], form: BreakerFilter) -> QuerySet[Deployment]:
    if words := form.value("q"):
        return rows.filter(
            Q(name__icontains=words)
            | Q(model__name__icontains=words)
            | Q(provider__name__icontains=words)
        )
    return rows


def _pager(request: HttpRequest, page: Any) -> dict[str, str]:
    def url(number: int) -> str:
        query = request.GET.copy()
        query["page"] = str(number)
        return f"{request.path}?{query.urlencode()}"

    several = page.has_other_pages()
    span = f"{page.start_index()}–{page.end_index()} of {page.paginator.count:,}"
    return {
        "next_url": url(page.next_page_number()) if page.has_next() else "",
        "previous_url": url(page.previous_page_number()) if page.has_previous() else "",
        "text": span if several else "",
    }


@require_GET
@admins_only
@never_cache
def breaker_card(request: HttpRequest, pk: str) -> HttpResponse:
    """The part of the deployment's page that is kept current, or its table."""
    part = "history" if request.GET.get("part") == "history" else "live"
    context = {"breaker": breaker_view(_get(pk)), "was": request.GET.get("was", "")}
    return render(request, f"fleet/breaker_{part}.html", context)


@require_POST
@admins_only
def breaker_order(request: HttpRequest, pk: str) -> HttpResponse:
    """Open, close or reset by hand."""
    deployment = _get(pk)
    form = BreakerOrderForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was ordered: say what, and why in at most 300 signs.")
        return redirect("catalog:deployment-detail", pk=pk)
    try:
        order = breakers.breaker_order(
            actor=cast(User, request.user), deployment=deployment, **form.cleaned_data
        )
    except ServiceError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, DONE[order.action].format(deployment))
    return redirect("catalog:deployment-detail", pk=pk)


def _get(pk: str) -> Deployment:
    return get_object_or_404(Deployment.objects.select_related("environment"), pk=pk)
