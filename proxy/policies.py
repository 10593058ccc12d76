"""What a replica knows of keys and of the rules that bind them. Pure.

Deltas of the policy feed are applied whole, between two requests. Of a request's path
(environment, team, user, key, customer) each scope brings its own rules; where a subject
has none of a kind for a model, the scope's default rules ("*") take their place.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from proxy.contract import (
    BreakerOrder,
    BudgetDocument,
    CalendarDocument,
    KeyPolicy,
    LimitDocument,
    PolicyFeed,
    Scope,
    SubjectPolicy,
    secret_context,
)
from proxy.snapshot import SnapshotError, open_sealed

PEPPER_ID = "pepper"
KEY_PREFIX = "sk-gw-"
EVERY = "*"  # the subject of a scope's default rules
MERGED_MAX = 5_000  # a rule for every customer speaks of as many as callers can think of

# What an earlier version's feed, or its last good state on disk, does not say.
_KEY_DEFAULTS: dict[str, Any] = {
    "cache": "off",
    "cache_ttl_s": None,
    "cache_version": 0,
    "max_output_tokens": None,
}
_CALENDAR: CalendarDocument = {"time_zone": "UTC", "week_start": 1, "fiscal_year_month": 1}

SubjectKey = tuple[str, str]  # scope, subject
Rule = TypeVar("Rule", BudgetDocument, LimitDocument)


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """The rules that hold for one subject, defaults included."""

    scope: Scope
    subject: str  # as in SubjectPolicy
    name: str  # what refusals call it
    blocked: str | None
    budgets: tuple[BudgetDocument, ...]
    limits: tuple[LimitDocument, ...]


class PolicyTable:
    """Virtual keys by public id, rules by subject."""

    def __init__(self) -> None:
        self.version = 0
        self.changes = 0  # feeds taken over; what was derived before another one is outdated
        self.any_blocked = False  # some subject of some scope
        self.pepper = b""
        self._keyed = hmac.new(b"", digestmod="sha256")
        self.sealed_pepper = ""
        self.calendar: CalendarDocument = _CALENDAR
        self.breaker_orders: dict[str, BreakerOrder] = {}  # by deployment
        self._keys: dict[str, KeyPolicy] = {}
        self._subjects: dict[SubjectKey, SubjectPolicy] = {}
        self._merged: dict[SubjectKey, SubjectRules] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def apply(self, feed: PolicyFeed, *, environment: str, fleet_key: bytes) -> None:
        """Take over a feed; raise SnapshotError and change nothing if it is unusable."""
        try:
            pepper = open_sealed(feed["pepper"], fleet_key, secret_context(environment, PEPPER_ID))
            keys = {} if feed["full"] else dict(self._keys)
            for public_id in feed["removed"]:
                keys.pop(public_id, None)
            for row in feed["keys"]:
                keys[row["public_id"]] = {**_KEY_DEFAULTS, **row}  # type: ignore[typeddict-item]
            subjects = self._changed_subjects(feed)
            calendar = feed.get("calendar") or self.calendar
            orders = {order["deployment"]: order for order in feed.get("breaker_orders", [])}
            version = int(feed["version"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise SnapshotError(f"policies refused: {detail}") from error
        self._keys, self._subjects, self._merged = keys, subjects, {}
        self.any_blocked = any(row["blocked"] is not None for row in subjects.values())
        self.calendar, self.breaker_orders = calendar, orders
        self.pepper, self.version, self.sealed_pepper = pepper, version, feed["pepper"]
        self._keyed = hmac.new(pepper, digestmod="sha256")
        self.changes += 1

    def _changed_subjects(self, feed: PolicyFeed) -> dict[SubjectKey, SubjectPolicy]:
        subjects = {} if feed["full"] else dict(self._subjects)
        for scope, subject in feed.get("removed_subjects", []):
            subjects.pop((scope, subject), None)
        for row in feed.get("subjects", []):
            subjects[row["scope"], row["subject"]] = row
        return subjects

    def find(self, key: str) -> KeyPolicy | None:
        """Policy of a presented key, or None if the key is not one of ours."""
        if not key.startswith(KEY_PREFIX) or len(key) > 256:
            return None
        public_id = key[len(KEY_PREFIX) :].split("-", 1)[0]
        policy = self._keys.get(public_id)
        keyed = self._keyed.copy()  # half the time of `hmac.digest`, which prepares its key anew
        keyed.update(key.encode())
        digest = keyed.hexdigest()
        # Unknown ids compare against themselves' negation, so both paths cost the same.
        expected = policy["digest"] if policy is not None else "0" * 64
        return policy if hmac.compare_digest(digest, expected) and policy is not None else None

    def export(self) -> PolicyFeed:
        """The whole table as a full feed, for the last good state on disk."""
        return {
            "version": self.version,
            "full": True,
            "pepper": self.sealed_pepper,
            "keys": list(self._keys.values()),
            "removed": [],
            "subjects": list(self._subjects.values()),
            "removed_subjects": [],
            "calendar": self.calendar,
            "breaker_orders": list(self.breaker_orders.values()),
        }

    # --- rules ---------------------------------------------------------------------------

    def rules_of(self, scope: Scope, subject: str) -> SubjectRules:
        """What holds for one subject. Empty when nobody made a rule."""
        found = self._ruled((scope, subject))
        return found or SubjectRules(scope, subject, subject, None, (), ())

    def speaks_of(self, scope: Scope, subject: str) -> bool:
        """Whether there are rules of the subject, or for every one of its kind."""
        return (scope, subject) in self._subjects or (scope, EVERY) in self._subjects

    def _ruled(self, key: tuple[Scope, str]) -> SubjectRules | None:
        """None when nobody made a rule. That is not kept: it would be a list of all customers."""
        found = self._merged.get(key)
        if found is None and self.speaks_of(*key):
            if len(self._merged) >= MERGED_MAX:
                self._merged.clear()
            found = self._merged[key] = self._merge(*key)
        return found

    def _merge(self, scope: Scope, subject: str) -> SubjectRules:
        own, default = self._subjects.get((scope, subject)), self._subjects.get((scope, EVERY))
        budgets = list(own["budgets"]) if own else []
        limits = list(own["limits"]) if own else []
        if default is not None:
            budgets += _not_replaced(default["budgets"], budgets)
            limits += _not_replaced(default["limits"], limits)
        return SubjectRules(
            scope=scope,
            subject=subject,
            name=own["name"] if own else subject,
            blocked=own["blocked"] if own else None,
            budgets=tuple(budgets),
            limits=tuple(limits),
        )

    def path_of(self, policy: KeyPolicy, customer: str, environment: str) -> list[SubjectRules]:
        """The rules on a request's path, widest scope first; scopes without any are left out."""
        subjects: Iterable[tuple[Scope, str | None]] = (
            ("environment", environment),
            ("team", policy["team_id"]),
            ("user", policy["user_id"]),
            ("key", policy["key_id"]),
            ("customer", customer or None),
        )
        found = [self._ruled((scope, subject)) for scope, subject in subjects if subject]
        return [each for each in found if each and (each.budgets or each.limits or each.blocked)]


def _not_replaced(defaults: Iterable[Rule], own: Iterable[Rule]) -> list[Rule]:
    models = {rule["model"] for rule in own}
    return [rule for rule in defaults if rule["model"] not in models]


def is_expired(policy: KeyPolicy, now: datetime) -> bool:
    """Whether the key's time is over. An unreadable time counts as over."""
    expires_at = policy["expires_at"]
    if expires_at is None:
        return False
    try:
        moment = datetime.fromisoformat(expires_at)
    except ValueError:
        return True
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment <= now
