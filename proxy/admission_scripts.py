"""The scripts of admission, in Python's words. Raises LinkDown and nothing else."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import orjson

from proxy.admission_plan import Reservation
from proxy.admission_wire import AdmitForm, Settlement, bulk, grown_hold
from proxy.clock import Clock
from proxy.contract.counters import (
    HOLD_TTL_S,
    WORKER_LOST_AFTER_S,
    abandoned_key,
    epoch_key,
    holds_key,
    tag,
    workers_key,
)
from proxy.grant import Grant
from proxy.redis_link import RedisLink, Script
from proxy.trace import Trace

Verdict = Literal["ok", "refused", "unbuilt", "stale", "gone"]
_VERDICTS: tuple[Verdict, ...] = ("ok", "refused", "unbuilt", "stale", "gone")
_KINDS = ("budget", "rpm", "tpm", "parallel")
FOUND = 6  # where balances begin in an answer
SWEEP_MAX = 200


class Reply:
    """What the counters said of one call."""

    __slots__ = ("_wanted", "epoch", "heard_s", "now_ms", "raw", "verdict")

    def __init__(self, raw: list[Any], wanted: Reservation) -> None:
        self.raw, self._wanted = raw, wanted
        self.heard_s = time.monotonic()
        self.verdict: Verdict = _VERDICTS[raw[0]]
        self.now_ms: int = raw[1]
        self.epoch: str = raw[2].decode()

    @property
    def kind(self) -> str:
        """Of the rule that refused: budget, rpm, tpm, parallel."""
        return _KINDS[self.raw[3]]

    @property
    def index(self) -> int:
        """Its place among its like."""
        return int(self.raw[4])

    @property
    def wait_ms(self) -> int:
        """When it may be asked again."""
        return int(self.raw[5])

    @property
    def of_target(self) -> bool:
        """Whether it is a rule of the target alone."""
        kind = self.kind
        first = self._wanted.plan.first_target[0 if kind == "budget" else 1]
        return kind != "parallel" and self.index >= first

    # What the rules had counted before this request.

    def balance(self, index: int) -> tuple[int, int]:
        """Spent and held of a budget."""
        at = FOUND + 2 * index
        return self.raw[at], self.raw[at + 1]

    def window(self, index: int) -> tuple[int, int]:
        """Requests and tokens of a window."""
        at = FOUND + 2 * (len(self._wanted.nano) + index)
        return self.raw[at], self.raw[at + 1]

    def running(self, index: int) -> int:
        """Members of a parallel set."""
        before = 2 * (len(self._wanted.nano) + len(self._wanted.tokens))
        return int(self.raw[FOUND + before + index])


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
        self.environment = environment
        self.clock = clock
        self.moment = ""
        self._admit = _script(link, "admit")
        self.settling = _script(link, "settle")
        self._renew = _script(link, "renew")
        self._sweep = _script(link, "sweep")
        self._merge = _script(link, "merge")
        head = (self.settling.digest, "2", epoch_key(environment), holds_key(environment))
        self._settle_head = bulk("EVALSHA") + b"".join(map(bulk, head))

    @property
    def moment(self) -> int | str:
        """What time it is: "" by Redis's clock; else milliseconds, for drills."""
        return self._moment

    @moment.setter
    def moment(self, moment: int | str) -> None:
        self._moment, self._moment_argument = moment, bulk(str(moment))

    def question(
        self, trace: Trace, wanted: Reservation, abandon_nano: int, grant: Grant | None = None
    ) -> bytes:
        """The call that reserves all or nothing; with a grant, further rules on its hold."""
        form: AdmitForm | None = wanted.plan.wire
        if form is None:
            form = wanted.plan.wire = AdmitForm(self._admit.digest, self.environment, wanted.plan)
        if grant is None:
            hold, limits = form.new_hold(trace, wanted, abandon_nano)
            epoch = ""
        else:
            hold, limits = grown_hold(trace, grant, wanted, abandon_nano)
            epoch = grant.epoch
        command = form.command(trace.event_id.encode(), wanted, hold, limits, epoch)
        return command + self._moment_argument

    async def admit(
        self,
        command: bytes,
        wanted: Reservation,
        *,
        at_once: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> Reply:
        """Ask a `question`; see RedisLink.ask for the rest."""
        asked_at = time.monotonic()
        raw = await self._admit.run(command, at_once=at_once, meanwhile=meanwhile)
        self.clock.heard(raw[1], asked_at=asked_at)
        return Reply(raw, wanted)

    def settlements(self, batch: Sequence[Settlement]) -> bytes:
        """The call that ends some holds; it answers the places of those that failed."""
        count = 6 + sum(one.arguments for one in batch)
        packed = [b"*%d\r\n" % count, self._settle_head, *(one.packed for one in batch)]
        return b"".join((*packed, self._moment_argument))

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


def _pairs(flat: Sequence[bytes]) -> list[tuple[int, int]]:
    return [(int(flat[at]), int(flat[at + 1])) for at in range(0, len(flat), 2)]
