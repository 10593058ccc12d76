"""The scripts of admission, in Python's words. Raises LinkDown and nothing else."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

import orjson

from proxy.admission_rules import BudgetRule, RuleSet, bounds_ms
from proxy.clock import Clock
from proxy.contract.counters import (
    HOLD_TTL_S,
    WORKER_LOST_AFTER_S,
    abandoned_key,
    epoch_key,
    hold_key,
    holds_key,
    tag,
    workers_key,
)
from proxy.grant import Charge, Grant, WindowUse
from proxy.redis_link import RedisLink, Script

Verdict = Literal["ok", "refused", "unbuilt", "stale", "gone"]
SWEEP_MAX = 200


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is to be reserved for each rule, in the order of the rules."""

    rules: RuleSet
    nano: Sequence[int]  # per budget
    tokens: Sequence[int]  # per window
    first_target: tuple[int, int]  # index of the first budget and window that are a target's


@dataclass(frozen=True, slots=True)
class Reply:
    """What the counters said."""

    verdict: Verdict
    epoch: str
    workers: int
    bucket: int
    kind: str = ""  # of the rule that refused: budget, rpm, tpm, parallel
    index: int = 0
    wait_ms: int = 0
    of_target: bool = False
    balances: list[tuple[int, int]] = field(default_factory=list)  # spent, held per budget
    windows: list[tuple[int, int]] = field(default_factory=list)  # requests, tokens per window
    running: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pulse:
    """Answer to a worker's sign of life."""

    epoch: str
    workers: list[str]
    renewed: int
    balances: list[tuple[int, int]]


class Counters:
    """The shared counters of one environment."""

    def __init__(self, link: RedisLink, environment: str, clock: Clock) -> None:
        self.link = link
        self.moment: int | str = ""  # "": Redis's clock; else milliseconds, for drills
        self.environment = environment
        self.clock = clock
        self._admit = _script(link, "admit")
        self._settle = _script(link, "settle")
        self._renew = _script(link, "renew")
        self._sweep = _script(link, "sweep")
        self._merge = _script(link, "merge")

    async def admit(
        self, hold_id: str, wanted: Reservation, grant: Grant, hold: Mapping[str, object]
    ) -> Reply:
        """Reserve all or nothing. A grant with an epoch gets further rules."""
        environment, rules = self.environment, wanted.rules
        keys = [
            epoch_key(environment),
            holds_key(environment),
            hold_key(environment, hold_id),
            workers_key(environment),
            *(rule.key for rule in rules.budgets),
            *(window.key for window in rules.windows),
            *(parallel.key for parallel in rules.parallel),
        ]
        asked_at = time.monotonic()
        raw = await self._admit(
            keys,
            (
                hold_id,
                orjson.dumps(hold),
                HOLD_TTL_S * 1000,
                grant.epoch,
                WORKER_LOST_AFTER_S,
                orjson.dumps([(use.key, use.bucket, use.tokens) for use in grant.windows])[1:-1],
                orjson.dumps(_asked(wanted)),
                self.moment,
            ),
        )
        self.clock.heard(int(raw[1]), asked_at=asked_at)
        return _reply(raw, wanted)

    async def settle(
        self,
        hold_id: str,
        *,
        epoch: str,
        tokens: int,
        windows: Sequence[WindowUse],
        charges: Sequence[tuple[Charge, int]],
    ) -> bool:
        """End a hold; False when it was gone already."""
        environment = self.environment
        charged = [
            (c.counter, nano, -1 if c.bucket is None else c.bucket, c.bucket_s, c.life_s)
            for c, nano in charges
        ]
        reply = await self._settle(
            [epoch_key(environment), holds_key(environment), hold_key(environment, hold_id)],
            (
                hold_id,
                tag(environment),
                epoch,
                tokens,
                orjson.dumps([use.key for use in windows]),
                orjson.dumps(charged),
                self.moment,
            ),
        )
        return bool(reply)

    async def renew(
        self, worker: str, holds: Mapping[str, Sequence[str]], budgets: Sequence[tuple[str, int]]
    ) -> Pulse:
        """Keep holds alive; look at budgets (key, width of a bucket or 0)."""
        environment = self.environment
        keys = [epoch_key(environment), holds_key(environment), workers_key(environment)]
        asked_at = time.monotonic()
        raw = await self._renew(
            [*keys, *(key for key, _ in budgets)],
            (
                worker,
                HOLD_TTL_S * 1000,
                WORKER_LOST_AFTER_S,
                orjson.dumps(holds),
                orjson.dumps([bucket_s for _, bucket_s in budgets]),
                self.moment,
            ),
        )
        self.clock.heard(int(raw[0]), asked_at=asked_at)
        workers = sorted(name.decode() for name in raw[2])
        return Pulse(raw[1].decode(), workers, int(raw[3]), _pairs(raw[4]))

    async def merge(self, windows: Mapping[str, Sequence[Sequence[int]]]) -> int:
        """Add what was admitted alone: by window second, requests, tokens, moment of the last."""
        if not windows:
            return 0
        return int(await self._merge([*windows], (orjson.dumps([*windows.values()]), self.moment)))

    async def sweep(self) -> int:
        """Move expired holds to where the control plane accounts for them."""
        keys = [holds_key(self.environment), abandoned_key(self.environment)]
        return int(await self._sweep(keys, (tag(self.environment), SWEEP_MAX, self.moment)))


def _script(link: RedisLink, name: str) -> Script:
    folder = resources.files("proxy").joinpath("lua")
    common = folder.joinpath("admission_common.lua").read_text(encoding="utf-8")
    return link.script(common + folder.joinpath(f"{name}.lua").read_text(encoding="utf-8"))


def _asked(wanted: Reservation) -> dict[str, object]:
    rules, (first_budget, first_window) = wanted.rules, wanted.first_target
    return {
        "b": [
            _budget(rule, nano, is_target=index >= first_budget)
            for index, (rule, nano) in enumerate(zip(rules.budgets, wanted.nano, strict=True))
        ],
        "l": [
            (int(index >= first_window), rule.rpm or 0, rule.tpm or 0, tokens)
            for index, (rule, tokens) in enumerate(zip(rules.windows, wanted.tokens, strict=True))
        ],
        "p": [(0, rule.limit) for rule in rules.parallel],
    }


def _budget(rule: BudgetRule, nano: int, *, is_target: bool) -> tuple[int, ...]:
    start_ms, end_ms = bounds_ms(rule.period)
    bucket_s = rule.period.bucket_s or 0
    return int(is_target), nano, rule.limit_nano, start_ms, end_ms, bucket_s, rule.life_s


def _reply(raw: list[Any], wanted: Reservation) -> Reply:
    verdict, _, epoch, workers, bucket, kind, index, wait_ms, found = raw
    kind_text = kind.decode()
    after_budgets = 2 * len(wanted.rules.budgets)
    after_windows = after_budgets + 2 * len(wanted.rules.windows)
    first = wanted.first_target[0 if kind_text == "budget" else 1]
    return Reply(
        verdict=verdict.decode(),
        epoch=epoch.decode(),
        workers=int(workers),
        bucket=int(bucket),
        kind=kind_text,
        index=int(index),
        wait_ms=int(wait_ms),
        of_target=kind_text != "parallel" and int(index) >= first,
        balances=_pairs(found[:after_budgets]),
        windows=_pairs(found[after_budgets:after_windows]),
        running=[int(count) for count in found[after_windows:]],
    )


def _pairs(flat: Sequence[bytes]) -> list[tuple[int, int]]:
    return [(int(flat[at]), int(flat[at + 1])) for at in range(0, len(flat), 2)]
