"""Usage events as a fleet would send them, for benchmarks and tests."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from proxy.contract import UsageEventDocument

PRICES = {"input_token": "0.0000025", "output_token": "0.00001", "cache_read_token": "0.00000125"}


def usage_event(**changes: Any) -> UsageEventDocument:
    """A priced, streamed chat request of one attempt that went well."""
    started_at = changes.pop("started_at", None) or datetime.now(UTC).isoformat()
    model = changes.get("model", "gpt-4o")
    deployment = changes.get("deployment")
    event: UsageEventDocument = {
        "event_id": str(uuid4()),
        "started_at": started_at,
        "revision": 1,
        "key_id": "11111111-1111-4111-8111-111111111111",
        "public_id": "abcdefghjk",
        "user_id": None,
        "team_id": None,
        "customer": "",
        "tags": {},
        "route": "/v1/chat/completions",
        "requested_model": model,
        "model": model,
        "deployment": None,
        "why": "first",
        "status": "ok",
        "http_status": 200,
        "error_class": None,
        "error": None,
        "input_tokens": 1_000,
        "output_tokens": 200,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "other_units": {},
        "price_version": "6f1c2d3e-0000-4000-8000-000000000001",
        "unit_prices": PRICES,
        "cost": "0.0045",
        "estimated": False,
        "streaming": True,
        "latency_ms": 812.5,
        "ttft_ms": 240.25,
        "overhead_ms": 4.5,
        "attempts": [
            {
                "deployment": deployment,
                "model": model,
                "why": "first",
                "started_at": started_at,
                "latency_ms": 808.0,
                "status": 200,
                "error_class": None,
                "error": None,
            }
        ],
        "lane": "litellm",
    }
    event.update(changes)  # type: ignore[typeddict-item]
    return event


class Mix:
    """A stream of varied events: heavy-tailed keys, log-normal latencies, some failures."""

    def __init__(self, *, keys: int, teams: int, seed: int = 1, budgets: bool = False) -> None:
        """`budgets`: each request was charged to five of them."""
        self.random = random.Random(seed)
        self.teams = [self._uuid() for _ in range(teams)]
        self.keys = [
            (self._uuid(), f"bench{number:05d}", self.teams[number % teams], str(number % 50 + 1))
            for number in range(keys)
        ]
        self.weights = [1 / (rank + 1) ** 0.8 for rank in range(keys)]
        self.budgets = [self._uuid() for _ in range(5)] if budgets else []
        self.models = [(f"model-{n}", self._uuid()) for n in range(20)]

    def _uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def batch(self, size: int, *, now: datetime, spread_s: float) -> list[UsageEventDocument]:
        chosen = self.random.choices(self.keys, self.weights, k=size)
        return [
            self._event(key, now - timedelta(seconds=self.random.random() * spread_s))
            for key in chosen
        ]

    def _event(self, key: tuple[str, str, str, str], at: datetime) -> UsageEventDocument:
        draw = self.random
        key_id, public_id, team_id, user_id = key
        model, deployment = self.models[(hash(key_id) + draw.choice((0, 0, 0, 1, 2))) % 20]
        tokens_in, tokens_out = draw.randint(20, 4_000), draw.randint(5, 900)
        cost = tokens_in * Decimal(PRICES["input_token"]) + tokens_out * Decimal("0.00001")
        failed = draw.random() < 0.02
        latency_ms = draw.lognormvariate(6.7, 0.6)
        return usage_event(
            event_id=self._uuid(),
            started_at=at.isoformat(),
            key_id=key_id,
            public_id=public_id,
            team_id=team_id,
            user_id=user_id,
            customer=f"customer-{draw.randint(1, 300)}" if draw.random() < 0.3 else "",
            model=model,
            requested_model=model,
            deployment=deployment,
            tags={"app": "chat"},
            status="error" if failed else "ok",
            http_status=529 if failed else 200,
            error_class="overloaded" if failed else None,
            error="Overloaded" if failed else None,
            input_tokens=tokens_in,
            output_tokens=0 if failed else tokens_out,
            cost="0" if failed else str(cost),
            streaming=draw.random() < 0.6,
            latency_ms=latency_ms,
            ttft_ms=latency_ms * 0.3,
            overhead_ms=draw.lognormvariate(1.3, 0.3),
            **self._admission("prod", team_id, user_id, key_id, f"c{draw.randint(1, 300)}"),
        )

    def _admission(self, *subjects: str) -> dict[str, Any]:
        if not self.budgets:
            return {}
        charged = [
            {"counter": f"{budget}:{subject}:m2026-11-01", "bucket": None}
            for budget, subject in zip(self.budgets, subjects, strict=True)
        ]
        return {"admission": {"mode": "shared", "epoch": "bench", "charged": charged}}
