"""Pages of budgets: list, set, detail with overrides and history, change, lift."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit_export
from gateway_admin.keys import budget_services, rights
from gateway_admin.keys.balances import Balance, balance_of, balances_of
from gateway_admin.keys.effects import amount_effect, budget_effect
from gateway_admin.keys.models import Budget, BudgetOverride, Scope
from gateway_admin.keys.rule_forms import BudgetChangeForm, BudgetFilter, BudgetForm, OverrideForm
from gateway_admin.keys.rules import RELATED
from gateway_admin.keys.shares import shares_of
from gateway_admin.keys.subject_finder import find_subject, name_of
from gateway_admin.keys.subjects import subject_of
from gateway_admin.keys.views import actor_of, environment_of
from gateway_admin.lib.csv_export import csv_response
from gateway_admin.lib.errors import Conflict, InvalidInput
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of

MOST_JUDGED = 2_000  # budgets whose balances are read to find those of one state
MOST_SHOWN = 200
NEWEST = Order("created_at", descending=True)
CSV_HEADER = [
    "name",
    "scope",
    "subject",
    "environment",
    "model",
    "period",
    "limit (USD)",
    "limit in force (USD)",
    "override until (UTC)",
    "alerts at (%)",
    "spent (USD)",
    "held (USD)",
    "remaining (USD)",
    "forecast (USD)",
    "resets at (UTC)",
    "as of (UTC)",
]


@require_GET
def budget_list(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    form, budgets = _filtered(request)
    state = form.cleaned_data.get("state", "")
    page = None
    truncated = False
    if state:
        found = _in_state(budgets.order_by(*NEWEST.columns())[:MOST_JUDGED], state)
        balances, truncated = found[:MOST_SHOWN], len(found) > MOST_SHOWN
    else:
        page = page_of(budgets, order=NEWEST, query=request.GET, path=request.path)
        balances = _balances(page.rows)
    context = {
        "form": form,
        "balances": balances,
        "page": page,
        "truncated": truncated,
        "filtered": any(form.cleaned_data.values()),
        "may_create": rights.sets_any_budget(person),
        "stored_at": next((b.as_of for b in balances if b.as_of is not None), None),
        "now": timezone.now(),
    }
    fragment = "#results" if getattr(request, "htmx", False) else ""
    return render(request, "keys/budget_list.html" + fragment, context)


@require_GET
def budget_csv(request: HttpRequest) -> HttpResponseBase:
    form, budgets = _filtered(request)
    asked = {name: str(value) for name, value in form.cleaned_data.items() if value}
    audit_export(actor=actor_of(request), what="budgets", filters=asked)
    state = form.cleaned_data.get("state", "")
    return csv_response(
        filename=f"budgets-{timezone.localdate():%Y-%m-%d}.csv",
        header=CSV_HEADER,
        rows=_csv_rows(budgets, state),
    )


def _filtered(request: HttpRequest) -> tuple[BudgetFilter, QuerySet[Budget]]:
    form = BudgetFilter(request.GET)
    form.is_valid()  # a filter that does not read is left out
    given: dict[str, Any] = form.cleaned_data
    budgets = rights.visible_budgets(actor_of(request)).filter(environment=environment_of(request))
    if scope := given.get("scope"):
        budgets = budgets.filter(
            **({"is_default": True} if scope == "default" else {"scope": scope})
        )
    if period := given.get("period"):
        budgets = budgets.filter(period=period)
    if text := given.get("q"):
        budgets = budgets.filter(
            Q(name__icontains=text)
            | Q(subject__iexact=text)
            | Q(team__name__icontains=text)
            | Q(user__email__icontains=text)
            | Q(user__name__icontains=text)
            | Q(key__name__icontains=text)
            | Q(customer__reference__icontains=text)
            | Q(customer__name__icontains=text)
        )
    if given.get("state") == "override":
        budgets = budgets.filter(
            overrides__revoked_at=None, overrides__expires_at__gt=timezone.now()
        )
    return form, budgets.select_related(*RELATED)


def _balances(budgets: Sequence[Budget] | QuerySet[Budget]) -> list[Balance]:
    return balances_of([(budget, subject_of(budget)) for budget in budgets])


def _in_state(budgets: Sequence[Budget] | QuerySet[Budget], state: str) -> list[Balance]:
    """Defaults have no balance of their own and so no state but that of an override."""
    found = _balances(budgets)
    if state == "override":
        return found
    return [one for one in found if one.state == state and not one.budget.is_default]


def _csv_rows(budgets: QuerySet[Budget], state: str) -> Iterator[list[Any]]:
    ordered = budgets.order_by(*NEWEST.columns())
    chunk: list[Budget] = []
    for budget in ordered.iterator(chunk_size=1_000):
        chunk.append(budget)
        if len(chunk) == 1_000:
            yield from map(_csv_row, _in_state(chunk, state) if state else _balances(chunk))
            chunk = []
    yield from map(_csv_row, _in_state(chunk, state) if state else _balances(chunk))


def _csv_row(balance: Balance) -> list[Any]:
    budget = balance.budget
    each = budget.is_default  # every subject has a balance of its own
    amounts = (balance.spent, balance.held, balance.remaining, balance.forecast)
    times = (balance.resets_at, balance.as_of or balance.at)
    return [
        budget.name,
        budget.scope,
        name_of(balance.subject) or budget.environment.slug,
        budget.environment.slug,
        budget.model,
        budget.length,
        budget.limit_usd,
        balance.limit,
        balance.override.expires_at.isoformat() if balance.override else "",
        " ".join(map(str, budget.soft_percent)),
        *("" if each or amount is None else amount for amount in amounts),
        *("" if moment is None else moment.isoformat() for moment in times),
    ]


@require_http_methods(["GET", "POST"])
def budget_create(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    initial = {name: request.GET[name] for name in BudgetForm.base_fields if name in request.GET}
    form = BudgetForm(
        request.POST or None,
        person=person,
        environment=environment_of(request),
        initial={"scope": Scope.TEAM, **initial},
    )
    if not rights.sets_any_budget(person):
        _only_own_keys(request, form)
    if request.method == "POST" and form.is_valid():
        assert form.subject is not None
        with errors_shown_by(form):
            budget = budget_services.budget_create(
                actor=person,
                subject=form.subject,
                model=form.cleaned_data["model"],
                **form.amounts(),
            )
        if form.is_valid():
            messages.success(request, f"{budget.name} is set. It is in force within a second.")
            return redirect("keys:budget-detail", pk=budget.pk)
    status = 422 if form.errors else 200
    return render(request, "keys/budget_form.html", {"form": form}, status=status)


def _only_own_keys(request: HttpRequest, form: BudgetForm) -> None:
    """Owners of teams come here from a key's page; nobody else has anything to set."""
    name = (request.POST or request.GET).get("key", "")
    try:
        subject = find_subject(
            actor=form.person, environment=form.environment, scope=Scope.KEY, name=name
        )
    except InvalidInput as error:
        raise PermissionDenied("Administrators and finance set budgets.") from error
    if not rights.may_set_budget(form.person, subject):
        raise PermissionDenied("Administrators, finance and owners of the key's team set budgets.")
    form.offer_scopes([Scope.KEY])


@require_GET
def budget_effect_of(request: HttpRequest) -> HttpResponse:
    """Fragment: what the budget in the form would do."""
    given = request.GET.copy()
    given["limit_usd"] = "1"  # whom it holds for does not hang on the amount
    form = BudgetForm(given, person=actor_of(request), environment=environment_of(request))
    sentences: list[str] = []
    if form.is_valid() and form.subject is not None:
        amounts = form.amounts()
        sentences = budget_effect(
            subject=form.subject,
            model=form.cleaned_data["model"],
            period=amounts["period"],
            rolling_hours=amounts["rolling_hours"],
        )
    return render(request, "keys/effect.html", {"sentences": sentences})


def budget_to_see(person: User, pk: UUID) -> Budget:
    budget = rights.visible_budgets(person).select_related(*RELATED).filter(pk=pk).first()
    if budget is None:
        raise Http404("No such budget.")
    return budget


def _budget_to_change(person: User, pk: UUID) -> Budget:
    budget = budget_to_see(person, pk)
    if not rights.may_change_budget(person, budget):
        raise PermissionDenied("Administrators and finance change this budget.")
    return budget


@require_GET
def budget_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    budget = budget_to_see(actor_of(request), pk)
    return _budget_page(request, budget, OverrideForm())


def _budget_page(
    request: HttpRequest, budget: Budget, override_form: OverrideForm, status: int = 200
) -> HttpResponse:
    person = actor_of(request)
    context = {
        "budget": budget,
        "balance": balance_of(budget, subject_of(budget)),
        "shares": shares_of(budget, person) if budget.is_default else None,
        "overrides": budget.overrides.select_related("granted_by", "revoked_by")[:50],
        "notices": budget.notices.all()[:20],
        "override_form": override_form,
        "may_change": rights.may_change_budget(person, budget),
        "may_override": rights.sets_any_budget(person),
        "now": timezone.now(),
    }
    return render(request, "keys/budget_detail.html", context, status=status)


@require_http_methods(["GET", "POST"])
def budget_edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    budget = _budget_to_change(person, pk)
    form = BudgetChangeForm.of(budget, request.POST or None)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            budget_services.budget_update(actor=person, budget=budget, **form.amounts())
        if form.is_valid():
            messages.success(request, "Budget saved. It is in force within a second.")
            return redirect("keys:budget-detail", pk=pk)
    status = 422 if form.errors else 200
    context = {"form": form, "budget": budget, "subject": subject_of(budget)}
    return render(request, "keys/budget_form.html", context, status=status)


@require_GET
def amount_effect_of(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Fragment: what another amount would do."""
    budget = budget_to_see(actor_of(request), pk)
    form = BudgetChangeForm.of(budget, request.GET)
    sentences = []
    if form.is_valid():
        if form.cleaned_data["period"] == budget.period:
            sentences = amount_effect(budget, form.cleaned_data["limit_usd"])
        else:
            amounts = form.amounts()
            sentences = budget_effect(
                subject=subject_of(budget),
                model=budget.model,
                period=amounts["period"],
                rolling_hours=amounts["rolling_hours"],
            )
    return render(request, "keys/effect.html", {"sentences": sentences})


@require_POST
def budget_delete(request: HttpRequest, pk: UUID) -> HttpResponse:
    budget = _budget_to_change(actor_of(request), pk)
    if request.POST.get("confirm", "").strip() != budget.name:
        messages.error(request, "Nothing was lifted: type the budget's name to confirm.")
        return redirect("keys:budget-detail", pk=pk)
    budget_services.budget_delete(actor=actor_of(request), budget=budget)
    messages.success(request, f"{budget.name} is lifted.")
    return redirect("keys:budget-list")


@require_POST
def override_grant(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    budget = budget_to_see(person, pk)
    form = OverrideForm(request.POST)
    if form.is_valid():
        with errors_shown_by(form):
            budget_services.override_grant(actor=person, budget=budget, **form.fields_of_override())
    if not form.is_valid():
        return _budget_page(request, budget, form, status=422)
    messages.success(request, "Override granted. It ends by itself.")
    return redirect("keys:budget-detail", pk=pk)


@require_POST
def override_revoke(request: HttpRequest, pk: UUID, override_id: int) -> HttpResponse:
    person = actor_of(request)
    budget = budget_to_see(person, pk)
    override = get_object_or_404(BudgetOverride, pk=override_id, budget=budget)
    try:
        budget_services.override_revoke(actor=person, override=override)
    except Conflict as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "Override ended. The budget's own limit holds again.")
    return redirect("keys:budget-detail", pk=pk)
