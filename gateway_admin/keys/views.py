"""Pages of virtual keys: list, issue, detail, edit, block, revoke."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit_export
from gateway_admin.catalog.models import Environment
from gateway_admin.frame.snippets import client_snippets
from gateway_admin.keys import queries, services
from gateway_admin.keys.forms import BlockForm, KeyFilter, KeyForm
from gateway_admin.keys.models import VirtualKey
from gateway_admin.keys.rule_pages import rule_cards, tightest
from gateway_admin.keys.rules import path_of
from gateway_admin.keys.subjects import subject_for
from gateway_admin.lib.csv_export import csv_response
from gateway_admin.lib.errors import Conflict, ServiceError
from gateway_admin.lib.forms import errors_shown_by
from gateway_admin.lib.keyset import Order, page_of

ORDERS = {
    "": Order("created_at", descending=True),
    "created": Order("created_at", descending=True),
    "-created": Order("created_at"),
    "name": Order("name"),
    "-name": Order("name", descending=True),
}
CSV_HEADER = [
    "name",
    "public id",
    "environment",
    "owner",
    "team",
    "models",
    "state",
    "reason",
    "created (UTC)",
    "expires (UTC)",
    "last used (UTC)",
    "tags",
]


def actor_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # the middleware lets nobody else through
    return request.user


def environment_of(request: HttpRequest) -> Environment:
    environment: Environment = request.environment  # type: ignore[attr-defined]
    return environment


@require_GET
def key_list(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    form, keys = _filtered(request)
    sort = form.cleaned_data.get("sort", "")
    page = page_of(
        queries.with_relations(keys),
        order=ORDERS.get(sort, ORDERS[""]),
        query=request.GET,
        path=request.path,
    )
    subjects = [subject_for(key, key.environment) for key in page.rows]
    for key, balance in zip(page.rows, tightest(subjects), strict=True):
        key.balance = balance  # type: ignore[attr-defined]
    context = {
        "form": form,
        "page": page,
        "filtered": any(value for name, value in form.cleaned_data.items() if name != "sort"),
        "sort": sort,
        "issues_keys": queries.issues_keys(person),
        "manages": _manages_some(person, page.rows),
    }
    template = "keys/key_list.html"
    fragment = "#results" if getattr(request, "htmx", False) else ""
    return render(request, template + fragment, context)


@require_GET
def key_csv(request: HttpRequest) -> HttpResponseBase:
    form, keys = _filtered(request)
    asked = {name: str(value) for name, value in form.cleaned_data.items() if value}
    audit_export(actor=actor_of(request), what="keys", filters=asked)
    return csv_response(
        filename=f"keys-{timezone.localdate():%Y-%m-%d}.csv",
        header=CSV_HEADER,
        rows=_csv_rows(queries.with_relations(keys)),
    )


def _filtered(request: HttpRequest) -> tuple[KeyFilter, QuerySet[VirtualKey]]:
    person, environment = actor_of(request), environment_of(request)
    form = KeyFilter(request.GET, user=person, environment=environment)
    form.is_valid()  # a filter that does not read is left out
    given: dict[str, Any] = form.cleaned_data
    keys = queries.visible_keys(person).filter(environment=environment)
    keys = queries.keys_in_state(keys, given.get("state", ""))
    if text := given.get("q"):
        keys = queries.keys_matching(keys, text)
    if team := given.get("team"):
        keys = keys.filter(team=None) if team == "none" else keys.filter(team__slug=team)
    if model := given.get("model"):
        keys = queries.keys_allowing(keys, model)
    if used := given.get("used"):
        since = None if used == "never" else timezone.now() - timedelta(days=int(used))
        keys = queries.keys_unused_since(keys, since)
    return form, keys


def _manages_some(person: User, keys: Any) -> set[UUID]:
    """Which rows of this page the person may change."""
    shown = [key.pk for key in keys]
    manageable = queries.manageable_keys(person).filter(pk__in=shown)
    return set(manageable.values_list("pk", flat=True))


def _csv_rows(keys: QuerySet[VirtualKey]) -> Iterator[list[str]]:
    for key in keys.order_by("-created_at", "-pk").iterator(chunk_size=2_000):
        yield [
            key.name,
            key.public_id,
            key.environment.slug,
            key.owner.email if key.owner else "",
            key.team.slug if key.team else "",
            "all" if key.allowed_models is None else " ".join(key.allowed_models),
            key.shown_state,
            key.reason,
            *(at.isoformat() if at else "" for at in (key.created_at, key.expires_at)),
            key.last_used_at.isoformat() if key.last_used_at else "",
            " ".join(f"{name}={value}" for name, value in key.tags.items()),
        ]


@never_cache
@require_http_methods(["GET", "POST"])
def key_create(request: HttpRequest) -> HttpResponse:
    person = actor_of(request)
    if not queries.issues_keys(person):
        return redirect("keys:key-list")
    teams = list(queries.joined_teams(person)[:2])
    team = request.GET.get("team") or (teams[0].slug if len(teams) == 1 else "")
    form = KeyForm(
        request.POST or None,
        user=person,
        environment=environment_of(request),
        initial={"team": team},
    )
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            key, text = services.key_create(
                actor=person, environment=form.environment, **form.fields_of_key()
            )
        if form.is_valid():
            return _show_secret(request, key, text)
    status = 422 if form.errors else 200
    return render(request, "keys/key_form.html", {"form": form}, status=status)


def _show_secret(request: HttpRequest, key: VirtualKey, text: str) -> HttpResponse:
    """The secret is on this page only; a reload cannot bring it back."""
    context = {"key": key, "text": text, "snippets": _snippets(key, text)}
    response = render(request, "keys/key_created.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _snippets(key: VirtualKey, text: str) -> list[dict[str, str]]:
    return client_snippets(
        base_url=settings.PROXY_PUBLIC_URL, key=text, model=queries.example_model(key)
    )


@require_GET
def model_choices(request: HttpRequest) -> HttpResponse:
    """The form's list of models for another environment."""
    data = QueryDict(mutable=True)
    data["in_environment"] = request.GET.get("in_environment", "")
    form = KeyForm(data, user=actor_of(request), environment=environment_of(request))
    return render(request, "keys/key_form.html#models", {"form": form})


@require_GET
def key_detail(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    key = queries.key_to_see(person, pk)
    manages = queries.may_manage(person, key)
    return _key_page(request, key, manages=manages, block_form=BlockForm())


def _key_page(
    request: HttpRequest,
    key: VirtualKey,
    *,
    manages: bool,
    block_form: BlockForm,
    status: int = 200,
) -> HttpResponse:
    context = {
        "key": key,
        "manages": manages,
        "block_form": block_form,
        "snippets": _snippets(key, f"sk-gw-{key.public_id}-…"),
        "requests_url": _page_about(key, "dashboards:requests"),
        "cost_url": _page_about(key, "dashboards:cost"),
        "base_url": f"{settings.PROXY_PUBLIC_URL}/v1",
        **rule_cards(actor_of(request), path_of(key)),
    }
    return render(request, "keys/key_detail.html", context, status=status)


def _page_about(key: VirtualKey, url_name: str) -> str:
    try:
        return f"{reverse(url_name)}?key={key.pk}&environment={key.environment.slug}"
    except NoReverseMatch:
        return ""


@require_http_methods(["GET", "POST"])
def key_edit(request: HttpRequest, pk: UUID) -> HttpResponse:
    person = actor_of(request)
    key = queries.key_to_manage(person, pk)
    if key.state == VirtualKey.State.REVOKED:
        messages.error(request, "This key is revoked for good. Issue a new one instead.")
        return redirect("keys:key-detail", pk=pk)
    form = KeyForm(request.POST or None, user=person, environment=environment_of(request), key=key)
    if request.method == "POST" and form.is_valid():
        with errors_shown_by(form):
            services.key_update(actor=person, key=key, **form.fields_of_key())
        if form.is_valid():
            messages.success(request, "Key saved. It is in force within a second.")
            return redirect("keys:key-detail", pk=pk)
    status = 422 if form.errors else 200
    return render(request, "keys/key_form.html", {"form": form, "key": key}, status=status)


@require_POST
def key_block(request: HttpRequest, pk: UUID) -> HttpResponse:
    key = queries.key_to_manage(actor_of(request), pk)
    form = BlockForm(request.POST)
    if form.is_valid():
        with errors_shown_by(form):
            services.key_block(actor=actor_of(request), key=key, reason=form.cleaned_data["reason"])
    if not form.is_valid():
        return _key_page(request, key, manages=True, block_form=form, status=422)
    messages.success(request, f"{key.name} is blocked.")
    return redirect("keys:key-detail", pk=pk)


@require_POST
def key_unblock(request: HttpRequest, pk: UUID) -> HttpResponse:
    key = queries.key_to_manage(actor_of(request), pk)
    try:
        services.key_unblock(actor=actor_of(request), key=key)
    except Conflict as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{key.name} works again.")
    return redirect("keys:key-detail", pk=pk)


@require_POST
def key_revoke(request: HttpRequest, pk: UUID) -> HttpResponse:
    key = queries.key_to_manage(actor_of(request), pk)
    if request.POST.get("confirm", "").strip() != key.name:
        messages.error(request, "Nothing was revoked: type the key's name to confirm.")
        return redirect("keys:key-detail", pk=pk)
    services.key_revoke(actor=actor_of(request), key=key)
    messages.success(request, f"{key.name} is revoked. Calls with it are refused from now on.")
    return redirect("keys:key-detail", pk=pk)


@require_POST
def key_bulk(request: HttpRequest) -> HttpResponse:
    """Block or revoke the ticked keys: asks first, acts when the phrase was typed."""
    person = actor_of(request)
    action = request.POST.get("action", "")
    keys = list(
        queries.with_relations(queries.manageable_keys(person)).filter(pk__in=_ids(request))
    )
    if action not in {"block", "revoke"} or not keys:
        messages.error(request, "Nothing was changed: tick the keys that you manage first.")
        return redirect("keys:key-list")
    form = BlockForm(request.POST if "confirmed" in request.POST else None)
    phrase = f"{action} {len(keys)} key{'' if len(keys) == 1 else 's'}"
    if "confirmed" in request.POST and request.POST.get("confirm", "").strip() == phrase:
        try:
            _apply(person, action, keys, request.POST.get("reason", ""))
        except ServiceError as error:
            form.add_error("reason" if error.field == "reason" else None, error.message)
        else:
            done = "blocked" if action == "block" else "revoked"
            messages.success(request, f"{len(keys)} keys are {done}.")
            return redirect("keys:key-list")
    context = {"keys": keys, "action": action, "form": form, "phrase": phrase}
    status = 422 if "confirmed" in request.POST else 200
    return render(request, "keys/key_bulk.html", context, status=status)


def _apply(person: User, action: str, keys: list[VirtualKey], reason: str) -> None:
    if action == "block":
        services.keys_block(actor=person, keys=keys, reason=reason)
    else:
        services.keys_revoke(actor=person, keys=keys)


def _ids(request: HttpRequest) -> list[UUID]:
    """The ticked rows; what is no id is left out."""
    ids = []
    for text in request.POST.getlist("key")[: services.MAX_BULK_KEYS]:
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    return ids


@never_cache
@require_GET
def first_call(request: HttpRequest, pk: UUID) -> HttpResponse:
    """Fragment of the page of a new key: waits until the key was used."""
    key = queries.key_to_see(actor_of(request), pk)
    context = {"key": key, "requests_url": _page_about(key, "dashboards:requests")}
    return render(request, "keys/key_created.html#first_call", context)
