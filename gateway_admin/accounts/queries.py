"""Reads for the pages of people, tokens and the audit trail."""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet

from gateway_admin.accounts.models import ApiToken, AuditEvent, User
from gateway_admin.frame.formats import clock

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+\d\d:\d\d$")


def people(*, text: str = "", role: str = "", state: str = "") -> QuerySet[User]:
    """People by part of name or e-mail, role, and state: "" active, "inactive", "all"."""
    found = User.objects.prefetch_related("groups")
    if text := text.strip():
        found = found.filter(Q(name__icontains=text) | Q(email__icontains=text))
    if role:
        found = found.filter(groups__name=role)
    if state != "all":
        found = found.filter(is_active=state != "inactive")
    return found


def tokens_of(user: User) -> QuerySet[ApiToken]:
    """Tokens of a person, live ones first."""
    return (
        ApiToken.objects.filter(user=user)
        .select_related("user")
        .order_by("-revoked_at", "-created_at")
    )


def audit_events(
    *,
    person: str = "",
    action: str = "",
    target: str = "",
    target_id: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[AuditEvent]:
    """Audit rows; `until` is exclusive. Order and page them by id."""
    events = AuditEvent.objects.all()
    if person := person.strip():
        known = User.objects.filter(Q(name__icontains=person) | Q(email__icontains=person))
        ids = list(known.values_list("pk", flat=True)[:200])
        events = events.filter(Q(actor__in=ids) | Q(actor_label__iexact=person))
    if action:
        events = events.filter(action=action)
    if target := target.strip():
        events = events.filter(Q(target_label__icontains=target) | Q(target_type__iexact=target))
    if target_id:
        events = events.filter(target_id=target_id)
    if since:
        events = events.filter(at__gte=since)
    if until:
        events = events.filter(at__lt=until)
    return events


def audit_actions() -> list[str]:
    """Actions that occur, found by jumping through the index from one to the next."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH RECURSIVE found AS (
                (SELECT action FROM accounts_auditevent ORDER BY action LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT event.action FROM accounts_auditevent event
                    WHERE event.action > found.action ORDER BY event.action LIMIT 1
                )
                FROM found WHERE found.action IS NOT NULL
            )
            SELECT action FROM found WHERE action IS NOT NULL
            """
        )
        return [action for (action,) in cursor.fetchall()]


def changes_in_words(changes: dict[str, Any]) -> Iterable[tuple[str, str, str]]:
    """(field, before, after) of an audit row; "" where there was or is nothing."""
    for field, pair in changes.items():
        before, after = pair if isinstance(pair, list) and len(pair) == 2 else (None, pair)
        yield field.replace("_", " "), _in_words(before), _in_words(after)


def _in_words(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_in_words(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}={_in_words(item)}" for name, item in value.items()) or "none"
    if isinstance(value, str) and _MOMENT.match(value):
        return clock(datetime.fromisoformat(value))
    return str(value)
