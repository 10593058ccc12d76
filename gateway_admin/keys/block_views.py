"""Pages of blocks and customers, and the buttons that purge cached answers."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, requires
from gateway_admin.keys import block_services, cache_services, queries, rights
from gateway_admin.keys.customer_spend import SPEND_DAYS, customer_spend
from gateway_admin.keys.models import Block, Customer, Scope, Team
from gateway_admin.keys.rule_forms import (
    BlockFilter,
    CustomerForm,
    CustomerNameForm,
    NewBlockForm,
    SearchFilter,
)
from gateway_admin.keys.rule_pages import rule_cards, tightest
from gateway_admin.keys.subjects import subject_for
from gateway_admin.keys.views import actor_of, environment_of
from gateway_admin.lib.errors import Conflict
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of

MOST_UNNAMED = 10
SUBJECTS = ("team", "user", "customer")


@require_GET
def block_list(request: HttpRequest) -> HttpResponse:
    return _block_page(request, _block_form(request, None))


@require_POST
@requires(Role.ADMIN)
def block_create(request: HttpRequest) -> HttpResponse:
    form = _block_form(request, request.POST)
    if form.is_valid():
        assert form.subject is not None
        target = form.subject.target
        assert isinstance(target, Team | User | Customer)
        everywhere = form.cleaned_data["where"] == "everywhere"
        with errors_shown_by(form):
            block_services.subject_block(
                actor=actor_of(request),
                target=target,
                reason=form.cleaned_data["reason"],
                environment=None if everywhere else environment_of(request),
            )
    if not form.is_valid():
        return _block_page(request, form, status=422)
    assert form.subject is not None
    messages.success(request, f"{form.subject.label} is blocked. Calls are refused from now on.")
    return redirect("keys:block-list")


@require_POST
@requires(Role.ADMIN)
def block_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    block = get_object_or_404(Block.objects.select_related("environment", *SUBJECTS), pk=pk)
    try:
        block_services.subject_unblock(actor=actor_of(request), block=block)
    except Conflict as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{block.target} can call again.")
    return redirect("keys:block-list")


def _block_form(request: HttpRequest, data: Any) -> NewBlockForm:
    initial = {name: request.GET[name] for name in ("scope", *SUBJECTS) if name in request.GET}
    return NewBlockForm(
        data,
        person=actor_of(request),
        environment=environment_of(request),
        initial={"scope": Scope.TEAM, **initial},
    )


def _block_page(request: HttpRequest, form: NewBlockForm, status: int = 200) -> HttpResponse:
    person = actor_of(request)
    asked = BlockFilter(request.GET)
    asked.is_valid()  # a filter that does not read is left out
    here = Q(environment=environment_of(request)) | Q(environment=None)
    blocks = rights.visible_blocks(person).filter(here)
    if scope := asked.cleaned_data.get("scope"):
        blocks = blocks.filter(scope=scope)
    if text := asked.cleaned_data.get("q"):
        blocks = blocks.filter(
            Q(reason__icontains=text)
            | Q(team__name__icontains=text)
            | Q(user__email__icontains=text)
            | Q(user__name__icontains=text)
            | Q(customer__reference__icontains=text)
            | Q(customer__name__icontains=text)
        )
    page = page_of(
        blocks.select_related("environment", "created_by", *SUBJECTS),
        order=Order("created_at", descending=True),
        query=request.GET,
        path=request.path,
    )
    keys = queries.keys_in_state(queries.visible_keys(person), "blocked")
    context = {
        "filter": asked,
        "form": form,
        "page": page,
        "filtered": any(asked.cleaned_data.values()),
        "may_block": rights.may_block(person),
        "blocked_keys": keys.filter(environment=environment_of(request)).count(),
    }
    fragment = "#results" if getattr(request, "htmx", False) else ""
    return render(request, "keys/block_list.html" + fragment, context, status=status)


@require_GET
@requires(Role.ADMIN, Role.FINANCE)
def customer_list(request: HttpRequest) -> HttpResponse:
    form = SearchFilter(request.GET)
    form.is_valid()
    customers = Customer.objects.filter(environment=environment_of(request))
    if text := form.cleaned_data.get("q"):
        customers = customers.filter(Q(reference__icontains=text) | Q(name__icontains=text))
    page = page_of(
        customers,
        order=Order("created_at", descending=True),
        query=request.GET,
        path=request.path,
    )
    spend = customer_spend(environment_of(request))
    named = spend.of({customer.reference for customer in page.rows})
    subjects = [subject_for(customer, environment_of(request)) for customer in page.rows]
    for customer, balance in zip(page.rows, tightest(subjects), strict=True):
        customer.balance = balance  # type: ignore[attr-defined]
        customer.spent = named.get(customer.reference, Decimal(0))  # type: ignore[attr-defined]
    filtered = any(form.cleaned_data.values())
    context = {
        "form": form,
        "page": page,
        "filtered": filtered,
        "unnamed": [] if filtered or "after" in request.GET else spend.unnamed(MOST_UNNAMED),
        "days": SPEND_DAYS,
    }
    fragment = "#results" if getattr(request, "htmx", False) else ""
    return render(request, "keys/customer_list.html" + fragment, context)


@require_http_methods(["GET", "POST"])
@requires(Role.ADMIN, Role.FINANCE)
def customer_create(request: HttpRequest) -> HttpResponse:
    form = CustomerForm(request.POST or None, initial={"reference": request.GET.get("reference")})
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            customer = block_services.customer_create(
                actor=actor_of(request), environment=environment_of(request), **form.cleaned_data
            )
        if form.is_valid():
            messages.success(request, f"{customer} is known. Set a budget or a limit.")
            return redirect("keys:customer-detail", pk=customer.pk)
    status = 422 if form.errors else 200
    return render(request, "keys/customer_form.html", {"form": form}, status=status)


@require_http_methods(["GET", "POST"])
@requires(Role.ADMIN, Role.FINANCE)
def customer_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    customer = get_object_or_404(Customer.objects.select_related("environment"), pk=pk)
    form = CustomerNameForm(request.POST or None, initial={"name": customer.name})
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            block_services.customer_update(actor=person, customer=customer, **form.cleaned_data)
        if form.is_valid():
            messages.success(request, "Customer saved.")
            return redirect("keys:customer-detail", pk=pk)
    environment = customer.environment
    subjects = [subject_for(customer, environment), subject_for(environment, environment)]
    context = {
        "customer": customer,
        "form": form,
        "may_block": rights.may_block(person),
        **rule_cards(person, subjects),
    }
    status = 422 if form.errors else 200
    return render(request, "keys/customer_detail.html", context, status=status)


@require_POST
@requires(Role.ADMIN, Role.FINANCE)
def customer_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    customer = get_object_or_404(Customer, pk=pk)
    try:
        block_services.customer_delete(actor=actor_of(request), customer=customer)
    except Conflict as error:
        messages.error(request, error.message)
        return redirect("keys:customer-detail", pk=pk)
    messages.success(request, f"{customer} is forgotten; its usage stays.")
    return redirect("keys:customer-list")


@require_POST
def purge_key(request: HttpRequest, pk: UUID) -> HttpResponse:
    key = queries.key_to_manage(actor_of(request), pk)
    cache_services.cache_purge_key(actor=actor_of(request), key=key)
    messages.success(request, f"No kept answer is given to {key.name} any more.")
    return redirect(_back(request, otherwise=reverse("keys:key-detail", args=[pk])))


@require_POST
def purge_team(request: HttpRequest, slug: str) -> HttpResponse:
    team = queries.team_to_manage(actor_of(request), slug)
    keys = cache_services.cache_purge_team(actor=actor_of(request), team=team)
    messages.success(request, f"No kept answer is given to the team's {keys} keys any more.")
    return redirect(_back(request, otherwise=reverse("keys:team-detail", args=[slug])))


@require_POST
@requires(Role.ADMIN)
def purge_environment(request: HttpRequest) -> HttpResponse:
    environment = environment_of(request)
    if request.POST.get("confirm", "").strip() != environment.name:
        messages.error(request, "Nothing was purged: type the environment's name to confirm.")
    else:
        cache_services.cache_purge_environment(actor=actor_of(request), environment=environment)
        messages.success(request, f"No kept answer of {environment} is given any more.")
    return redirect(_back(request, otherwise=reverse("keys:key-list")))


def _back(request: HttpRequest, *, otherwise: str) -> str:
    """The page of this site that the button stood on, as `next` names it."""
    address = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(address, allowed_hosts=None):
        return address
    return otherwise
