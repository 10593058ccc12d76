"""Pages over the ledger. What they show is worked out in the module of each page."""

from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, requires, role_of
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.dashboards import cost, latency, overview
from gateway_admin.dashboards import requests as log
from gateway_admin.dashboards.conditions import conditions_of, keys_of, news_of
from gateway_admin.dashboards.forms import CostForm, LatencyForm, RequestsForm
from gateway_admin.dashboards.words import (
    ABANDONED_WORDS,
    ADMISSION_WORDS,
    ERROR_WORDS,
    WHY_WORDS,
)
from gateway_admin.frame import formats
from gateway_admin.frame.snippets import client_snippets
from gateway_admin.keys.queries import example_model
from gateway_admin.keys.services import key_create
from gateway_admin.lib.csv_export import csv_response
from gateway_admin.lib.keyset import Order, page_of
from gateway_admin.usage.event_queries import HEAVY_FIELDS, event_to_see, events_matching
from gateway_admin.usage.labels import labels_of
from gateway_admin.usage.lanes import lane_words
from gateway_admin.usage.models import Measure, UsageEvent
from gateway_admin.usage.queries import Scope, visible_to
from gateway_admin.usage.rollups import rollup_time_zone

LOG_ORDER = Order("started_at", descending=True)
PAGE_SIZE = 50


def person_of(request: HttpRequest) -> User:
    """The person who is signed in; the middleware lets nobody else in."""
    assert isinstance(request.user, User)
    return request.user


def environment_of(request: HttpRequest) -> Environment:
    environment: Environment = request.environment  # type: ignore[attr-defined]
    return environment


def scope_of(request: HttpRequest) -> Scope:
    return visible_to(person_of(request))


def today_of(now: datetime, zone: ZoneInfo) -> date:
    return now.astimezone(zone).date()


@require_GET
def overview_page(request: HttpRequest) -> HttpResponse:
    """Health, speed and spend now; before the first call, how to get there."""
    environment = environment_of(request)
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "dashboards/overview.html#live", _live(request))
    if not overview.has_usage(environment):
        return render(request, "dashboards/first_run.html", _first_run(request))
    context = {
        **_live(request),
        "rankings": overview.rankings(
            scope=scope_of(request), environment=environment, now=timezone.now()
        ),
    }
    return render(request, "dashboards/overview.html", context)


def _live(request: HttpRequest) -> dict[str, Any]:
    now, environment = timezone.now(), environment_of(request)
    zone = ZoneInfo(rollup_time_zone())
    is_admin = role_of(request.user) is Role.ADMIN
    rollout = overview.rollout_now(environment, now)
    desired = rollout.rollout.revision.number if rollout else None
    found = conditions_of(environment, desired=desired, now=now) if is_admin else []
    return {
        "now": overview.now_of(
            scope=scope_of(request), environment=environment, now=now, zone=zone
        ),
        "rollout": rollout,
        "is_admin": is_admin,
        "conditions": found,
        "conditions_key": keys_of(found),
        "conditions_news": news_of(found, request.GET.get("was")),
        "as_of": now,
    }


def _first_run(request: HttpRequest) -> dict[str, Any]:
    environment, person = environment_of(request), person_of(request)
    return {
        "steps": overview.beginning_of(user=person, environment=environment),
        "is_admin": role_of(person) is Role.ADMIN,
        "issues_keys": role_of(person) in {Role.ADMIN, Role.DEVELOPER},
        "snippets": client_snippets(
            base_url=settings.PROXY_PUBLIC_URL,
            key="$GATEWAY_KEY",
            model=environment.default_model or overview.some_model(environment),
        ),
    }


@require_POST
@requires(Role.ADMIN, Role.DEVELOPER)
def first_key(request: HttpRequest) -> HttpResponse:
    """Issue a key on the first-run list and show the call with the key filled in."""
    person = person_of(request)
    key, secret = key_create(
        actor=person,
        environment=environment_of(request),
        name="First key",
        owner=person,
        team=None,
        allowed_models=None,
        expires_at=None,
        tags={},
    )
    snippets = client_snippets(
        base_url=settings.PROXY_PUBLIC_URL, key=secret, model=example_model(key)
    )
    return render(request, "dashboards/_first_call.html", {"secret": secret, "snippets": snippets})


@require_GET
def first_call(request: HttpRequest) -> HttpResponse:
    """Polled by the first-run list until the first call arrives."""
    event = overview.first_call(scope=scope_of(request), environment=environment_of(request))
    return render(request, "dashboards/_listener.html", {"event": event})


@require_GET
def cost_page(request: HttpRequest) -> HttpResponse:
    """What was spent, by whom and on what."""
    form = CostForm(request, environment_of(request), person_of(request))
    today = today_of(timezone.now(), ZoneInfo(rollup_time_zone()))
    context = {
        "form": form,
        "report": cost.cost_report(scope=scope_of(request), form=form, today=today),
        "chart_query": _chart_query(request),
        "narrow": form.is_narrow(form.narrowing),
        "as_of": timezone.now(),
    }
    return render(request, _page_or_fragment(request, "dashboards/cost.html"), context)


@require_GET
def cost_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Spend by day and group as the page filters it."""
    form = CostForm(request, environment_of(request), person_of(request))
    today = today_of(timezone.now(), ZoneInfo(rollup_time_zone()))
    rows = cost.cost_csv_rows(scope=scope_of(request), form=form, today=today)
    return csv_response(
        filename=f"cost-{form.environment.slug}-{today}.csv", header=cost.CSV_HEADER, rows=rows
    )


@require_GET
def latency_page(request: HttpRequest) -> HttpResponse:
    """How long answers take and what fails."""
    form = LatencyForm(request, environment_of(request), person_of(request))
    now = timezone.now()
    window = latency.window_of(form, now=now, zone=ZoneInfo(rollup_time_zone()))
    context = {
        "form": form,
        "report": latency.latency_report(scope=scope_of(request), form=form, window=window),
        "chart_query": _chart_query(request),
        "narrow": form.is_narrow(form.narrowing),
        "as_of": now,
    }
    return render(request, _page_or_fragment(request, "dashboards/latency.html"), context)


@require_GET
def latency_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Percentiles over time as the page filters them."""
    form = LatencyForm(request, environment_of(request), person_of(request))
    window = latency.window_of(form, now=timezone.now(), zone=ZoneInfo(rollup_time_zone()))
    scope = scope_of(request)
    lines = {
        measure: latency.percentile_lines(scope=scope, form=form, window=window, measure=measure)
        for measure in Measure
    }
    return csv_response(
        filename=f"latency-{form.environment.slug}.csv",
        header=latency.CSV_HEADER,
        rows=latency.csv_rows(lines),
    )


@require_GET
def requests_page(request: HttpRequest) -> HttpResponse:
    """The log of requests."""
    form = RequestsForm(request, environment_of(request), person_of(request))
    now = timezone.now()
    events = events_matching(scope=scope_of(request), filters=form.filters(now))
    page = page_of(
        events.defer(*HEAVY_FIELDS),
        order=LOG_ORDER,
        query=request.GET,
        size=PAGE_SIZE,
        path=request.path,
    )
    context = {
        "form": form,
        "rows": log.log_rows(page.rows),
        "page": page,
        "pager_text": f"{len(page.rows)} requests, newest first",
        "narrow": form.is_narrow(form.narrowing),
        "as_of": now,
    }
    return render(request, _page_or_fragment(request, "dashboards/requests.html"), context)


@require_GET
def requests_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Every request that the page's filters let through; the export is in the audit trail."""
    form = RequestsForm(request, environment_of(request), person_of(request))
    events = events_matching(scope=scope_of(request), filters=form.filters(timezone.now()))
    filters = {name: [None, value] for name, value in request.GET.items()}
    audit(
        actor=person_of(request),
        action="usage.export",
        target=environment_of(request),
        changes=filters,
        environment=form.environment.slug,
    )
    return csv_response(
        filename=f"requests-{form.environment.slug}.csv",
        header=log.CSV_COLUMNS,
        rows=log.csv_rows(events, form.environment.slug),
    )


@require_GET
def request_detail(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """One request: its attempts, tokens and cost; never its prompt."""
    event = event_to_see(scope_of(request), event_id)
    if event is None:
        raise Http404("No such request, or it is older than the retention.")
    (row,) = log.log_rows([event])
    abandoned = event.status == "abandoned"
    parts = [] if event.why == "cache" else log.cost_parts(event)
    explained = sum((part.amount for part in parts if part.amount is not None), start=0)
    context = {
        "event": event,
        "row": row,
        "owner": labels_of("user", [event.user_id]).name(event.user_id),
        "provider": labels_of("provider", [event.provider_id]).name(event.provider_id),
        "environment_name": labels_of("environment", [event.environment_id]).name(
            event.environment_id
        ),
        "attempts": log.attempt_bars(event),
        "lane": lane_words(event),
        "parts": parts,
        "explained": event.cost is not None and explained == event.cost,
        "why": WHY_WORDS.get(event.why, ""),
        "trouble": ABANDONED_WORDS if abandoned else ERROR_WORDS.get(event.error_class),
        "abandoned": abandoned,
        "counted": "" if abandoned else ADMISSION_WORDS.get(event.admission, ""),
        **_detail_hints(event),
    }
    return render(request, "dashboards/request_detail.html", context)


def _detail_hints(event: UsageEvent) -> dict[str, str]:
    """Small print beneath the figures of one request."""
    overhead, known = event.overhead_ms, event.status != "abandoned"
    tokens = f"{formats.compact(event.input_tokens)} / {formats.compact(event.output_tokens)}"
    counted_by = "estimated by the gateway" if event.estimated else "as reported"
    return {
        "cost_hint": _cost_hint(event),
        "cost_exact": "unpriced" if event.cost is None else log.exact_money(event.cost),
        "saved_exact": "" if event.saved_cost is None else log.exact_money(event.saved_cost),
        "overhead_hint": ""
        if overhead is None
        else f"{formats.duration(overhead)} of it in the gateway",
        "first_token_hint": "" if event.streaming or not known else "not streamed",
        "latency_text": formats.duration(event.latency_ms if known else None),
        "tokens_text": tokens if known else "–",
        "tokens_hint": counted_by if known else "not known",
        "error_words": event.error_class.replace("_", " "),
    }


def _cost_hint(event: UsageEvent) -> str:
    if event.saved_cost is not None:
        return f"{log.exact_money(event.saved_cost)} saved by the cache"
    return "no price was known" if event.cost is None else "US dollars"


def _chart_query(request: HttpRequest) -> str:
    """The page's filters for the addresses of its charts."""
    query = request.GET.urlencode()
    return f"?{query}" if query else ""


def _page_or_fragment(request: HttpRequest, template: str) -> str:
    return f"{template}#results" if request.htmx else template  # type: ignore[attr-defined]
