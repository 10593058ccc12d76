"""A stand-in for workers: the same effects on the counters that admission's scripts have."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import uuid4

import redis
from django.conf import settings
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget
from gateway_admin.usage import counter_store
from gateway_admin.usage.spent import current_period, question_of
from proxy.contract import HoldDocument, UsageEventDocument, counters
from proxy.contract.counters import nano_dollars
from tests import builders
from tests.usage.ledger import usage_event

FACTS = (
    "started_at",
    "key_id",
    "public_id",
    "user_id",
    "team_id",
    "customer",
    "tags",
    "route",
    "requested_model",
    "model",
    "deployment",
    "streaming",
    "revision",
)

# Hold exists: spend and what waits for the ledger go up, what was held goes down.
_SETTLE = """
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
for i = 3, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'h', '-' .. ARGV[3])
  redis.call('HINCRBY', KEYS[i], 's', ARGV[2])
  redis.call('HINCRBY', KEYS[i], 'p', ARGV[2])
  if ARGV[i + 1] ~= '' then redis.call('HINCRBY', KEYS[i], 'b' .. ARGV[i + 1], ARGV[2]) end
end
return 1
"""


def budget(**fields: Any) -> Budget:
    """A monthly budget of the environment, or of whom the fields say."""
    values: dict[str, Any] = {
        "environment": builders.environment(),
        "scope": "environment",
        "name": f"budget {uuid4().hex[:6]}",
        "limit_usd": Decimal(100),
        "period": "month",
        **fields,
    }
    values.setdefault("subject", values["environment"].slug)
    return Budget.objects.create(**values)


class Fleet:
    """Admits, settles and abandons requests on the counters of one environment."""

    def __init__(self, environment: Environment | None = None) -> None:
        self.environment = environment or builders.environment()
        self.slug = self.environment.slug
        self.redis = redis.Redis.from_url(settings.REDIS_URL, decode_responses=True)
        self._settle = self.redis.register_script(_SETTLE)

    def counter(self, budget: Budget, subject: str = "", at: Any = None) -> str:
        period = current_period(question_of(budget), at=at or timezone.now(), cut=calendar())
        ref = counters.subject_ref(budget.scope, subject or budget.subject)
        return counters.counter_name(str(budget.pk), ref, period.id)

    def read(self, budget: Budget, subject: str = "") -> counter_store.Reading:
        found = counter_store.readings(self.slug)
        return found.get(self.counter(budget, subject), counter_store.Reading())

    def admit(
        self, budgets: Iterable[Budget], *, estimate: int = 10**7, **event: Any
    ) -> UsageEventDocument:
        """Reserve; the event says "shared", or "local" where there are no counters."""
        document = usage_event(**event)
        charged = self._charged(budgets, document)
        epoch = str(self.redis.get(counters.epoch_key(self.slug)) or "")
        document["admission"] = {
            "mode": "shared" if epoch else "local",
            "epoch": epoch,
            "charged": charged,
        }
        if epoch:
            self._hold(document, estimate, epoch)
        return document

    def _charged(self, budgets: Iterable[Budget], event: UsageEventDocument) -> list[Any]:
        charged = []
        for row in budgets:
            subject = event["customer"] if row.scope == "customer" else ""
            subject = subject or (event["key_id"] if row.scope == "key" else "")
            name = self.counter(row, subject)
            period = current_period(question_of(row), at=timezone.now(), cut=calendar())
            charged.append({"counter": name, "bucket": period.bucket(timezone.now())})
        return charged

    def _hold(self, event: UsageEventDocument, estimate: int, epoch: str) -> None:
        charged = event["admission"]["charged"]
        now_ms = counters.moment_ms(timezone.now())
        hold: HoldDocument = {
            "id": event["event_id"],
            "epoch": epoch,
            "expires_ms": now_ms,
            "budgets": [(pair["counter"], estimate, pair["bucket"], 1) for pair in charged],
            "limits": [],
            "parallel": [],
            "abandon_nano": estimate // 4,
            "event": {name: event[name] for name in FACTS},  # type: ignore[literal-required]
        }
        with self.redis.pipeline() as pipeline:
            for pair in charged:
                key = counters.budget_key(self.slug, pair["counter"])
                pipeline.hincrby(key, "h", estimate)
                if pair["bucket"] is not None:
                    pipeline.hsetnx(key, "o", pair["bucket"])
            pipeline.set(counters.hold_key(self.slug, event["event_id"]), json.dumps(hold))
            pipeline.zadd(counters.holds_key(self.slug), {event["event_id"]: now_ms})
            pipeline.execute()

    def settle(self, event: UsageEventDocument, *, estimate: int = 10**7) -> bool:
        """What the worker does when the answer ended; False: the hold is gone."""
        charged = event["admission"]["charged"]
        keys = [counters.hold_key(self.slug, event["event_id"]), counters.holds_key(self.slug)]
        keys += [counters.budget_key(self.slug, pair["counter"]) for pair in charged]
        buckets = ["" if pair["bucket"] is None else pair["bucket"] for pair in charged]
        cost = nano_dollars(Decimal(event["cost"] or 0))
        return bool(self._settle(keys, [event["event_id"], cost, estimate, *buckets]))

    def abandon(self, event: UsageEventDocument) -> None:
        """What a worker's sweep does with an expired hold."""
        key = counters.hold_key(self.slug, event["event_id"])
        hold = json.loads(self.redis.get(key) or "null")
        with self.redis.pipeline() as pipeline:
            for counter, estimate, *_ in hold["budgets"]:
                pipeline.hincrby(counters.budget_key(self.slug, counter), "h", -estimate)
            pipeline.delete(key)
            pipeline.zrem(counters.holds_key(self.slug), event["event_id"])
            pipeline.lpush(counters.abandoned_key(self.slug), json.dumps(hold))
            pipeline.execute()

    def wipe(self) -> None:
        self.redis.flushdb()


@contextmanager
def redis_away(settings: Any) -> Iterator[None]:
    """The control plane's counters are at an address where nobody listens."""
    address = settings.REDIS_URL
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    counter_store.forget_connection()
    yield
    settings.REDIS_URL = address
    counter_store.forget_connection()


def in_balance(fleet: Fleet, budget: Budget, ledger: Decimal, subject: str = "") -> bool:
    """Whether spent = ledger + settled but not recorded."""
    reading = fleet.read(budget, subject)
    return reading.spent == nano_dollars(ledger) + reading.unrecorded
