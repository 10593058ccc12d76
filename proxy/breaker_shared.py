"""The fleet's circuit breakers in Redis: one script, many deployments at once."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from proxy.contract import BreakerDocument, BreakerState
from proxy.contract.counters import breaker_channel, breaker_key
from proxy.redis_link import RedisLink

_SCRIPT = (Path(__file__).parent / "lua" / "breaker.lua").read_text(encoding="utf-8")

# What is to be done with one deployment's breaker; see the head of breaker.lua.
Todo = Sequence[Sequence[str | int]]


@dataclass(frozen=True, slots=True)
class Told:
    """State of one breaker, as the script or an announcement tells it."""

    state: BreakerState
    generation: int
    since_ms: int
    held: bool
    paused_ms: int
    granted: bool
    reason: str
    who: str


class SharedBreakers:
    """The script, bound to an environment and to the worker that asks."""

    def __init__(self, link: RedisLink, environment: str, who: str) -> None:
        self._script = link.script(_SCRIPT)
        self._environment = environment
        self._channel = breaker_channel(environment)
        self._who = who

    async def work(
        self, rules: BreakerDocument, todo: Mapping[str, Todo], now_ms: int | None = None
    ) -> tuple[int, dict[str, Told]]:
        """Do it all at once; the server's moment in ms and the breakers. Raises LinkDown."""
        keys = [breaker_key(self._environment, deployment) for deployment in todo]
        arguments = [
            "" if now_ms is None else str(now_ms),
            self._channel,
            json.dumps(rules),
            self._who,
            *(json.dumps(list(one)) for one in todo.values()),
        ]
        reply = await self._script(keys, arguments)
        told = {deployment: _told(row) for deployment, row in zip(todo, reply[1:], strict=True)}
        return int(reply[0]), told


def read_announcement(environment: str, data: bytes) -> tuple[str, Told] | None:
    """Deployment and state of a message on the breakers' channel; None if it is not one."""
    try:
        key, state, generation, since_ms, held, paused_ms, reason, who = json.loads(data)
        prefix = breaker_key(environment, "")
        if not key.startswith(prefix):
            return None
        row = [state, generation, since_ms, held, paused_ms, 0, reason, who]
        return key[len(prefix) :], _told(row)
    except (ValueError, TypeError, AttributeError):
        return None


def _told(row: Sequence[Any]) -> Told:
    text = [part.decode() if isinstance(part, bytes) else str(part) for part in row]
    return Told(
        state=cast(BreakerState, text[0]),
        generation=int(text[1]),
        since_ms=int(text[2]),
        held=text[3] == "1",
        paused_ms=int(text[4]),
        granted=text[5] == "1",
        reason=text[6],
        who=text[7],
    )
