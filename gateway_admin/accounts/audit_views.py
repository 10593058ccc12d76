"""The audit trail: who did what, with the values before and after."""

from collections.abc import Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from gateway_admin.accounts import queries, services
from gateway_admin.accounts.forms import AuditFilter
from gateway_admin.accounts.models import AuditEvent, User
from gateway_admin.accounts.roles import Role, requires
from gateway_admin.lib.csv_export import csv_response
from gateway_admin.lib.keyset import Order, page_of

NEWEST_FIRST = Order("id", descending=True)
CSV_HEADER = [
    "time (UTC)",
    "actor",
    "action",
    "target type",
    "target id",
    "target",
    "environment",
    "changes",
    "address",
]


@require_GET
@requires(Role.ADMIN)
def audit_list(request: HttpRequest) -> HttpResponse:
    form, events = _filtered(request)
    page = page_of(
        events.select_related("actor"), order=NEWEST_FIRST, query=request.GET, path=request.path
    )
    rows = [(event, list(queries.changes_in_words(event.changes))) for event in page.rows]
    context = {
        "form": form,
        "page": page,
        "rows": rows,
        "filtered": any(form.cleaned_data.values()),
        "as_of": timezone.now(),
    }
    template = "accounts/audit_list.html"
    return render(
        request, template + ("#results" if getattr(request, "htmx", False) else ""), context
    )


@require_GET
@requires(Role.ADMIN)
def audit_csv(request: HttpRequest) -> HttpResponseBase:
    """The filtered rows, newest first, streamed; the export itself is audited."""
    form, events = _filtered(request)
    assert isinstance(request.user, User)
    asked = {name: str(value) for name, value in form.cleaned_data.items() if value}
    services.audit_export(actor=request.user, what="audit", filters=asked)
    day = timezone.localdate()
    return csv_response(
        filename=f"audit-{day:%Y-%m-%d}.csv", header=CSV_HEADER, rows=_csv_rows(events)
    )


def _filtered(request: HttpRequest) -> tuple[AuditFilter, QuerySet[AuditEvent]]:
    form = AuditFilter(request.GET, actions=queries.audit_actions())
    form.is_valid()  # a filter that does not read is shown at its field and left out
    given: dict[str, Any] = form.cleaned_data
    events = queries.audit_events(
        person=given.get("person", ""),
        action=given.get("action", ""),
        target=given.get("target", ""),
        target_id=given.get("target_id", ""),
        since=form.moment("since"),
        until=form.moment("until"),
    )
    return form, events


def _csv_rows(events: QuerySet[AuditEvent]) -> Iterator[list[str]]:
    for event in events.order_by("-id").iterator(chunk_size=2_000):
        words = (
            f"{field}: {before or '–'} → {after or '–'}"
            for field, before, after in queries.changes_in_words(event.changes)
        )
        yield [
            event.at.isoformat(),
            event.actor_label,
            event.action,
            event.target_type,
            event.target_id,
            event.target_label,
            event.environment,
            "; ".join(words),
            event.ip or "",
        ]
