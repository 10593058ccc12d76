"""Callers that never stop, and what became of each of their calls."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from uuid import uuid4

import httpx

PAUSE_S = 0.25
CALL_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """One call. `customer` marks it in the ledger; `status` is 0 when nobody answered."""

    customer: str
    base_url: str
    at: float  # time.monotonic() at its start
    took_s: float
    status: int
    code: str  # of a refusal
    whole: bool  # answered to the last byte


@dataclass
class Caller:
    """What one kind of caller asks for, and where."""

    base_urls: Sequence[str]
    key: str
    model: str = "openai-chat"
    streams: bool = True  # every other call
    pause_s: float = PAUSE_S
    max_tokens: int = 64
    outcomes: list[Outcome] = field(default_factory=list)

    def call(self, client: httpx.Client, number: int) -> Outcome:
        """One request to one of the replicas, in turn."""
        customer = uuid4().hex
        body = {
            "model": self.model,
            "user": customer,
            "max_tokens": self.max_tokens,
            "stream": self.streams and number % 2 == 0,
            "messages": [{"role": "user", "content": f"under load {customer}"}],
        }
        base_url = self.base_urls[number % len(self.base_urls)]
        began = time.monotonic()
        try:
            answer = client.post(
                f"{base_url}/v1/chat/completions", json=body, timeout=CALL_TIMEOUT_S
            )
        except httpx.TransportError:
            return Outcome(customer, base_url, began, time.monotonic() - began, 0, "away", False)
        took_s = time.monotonic() - began
        ok = answer.status_code == 200 and (not body["stream"] or "[DONE]" in answer.text)
        return Outcome(customer, base_url, began, took_s, answer.status_code, code_of(answer), ok)


def code_of(answer: httpx.Response) -> str:
    """The code of a refusal, or of an error inside a stream; "" when there is none."""
    if answer.status_code == 200:
        return "cut" if '"error"' in answer.text else ""
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "not JSON"


class Load:
    """Threads that call until the block ends.

    with Load([Caller(...), Caller(...)], threads=2) as load: ...
    load.outcomes
    """

    def __init__(self, callers: Sequence[Caller], *, threads: int = 2) -> None:
        self.callers = callers
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(caller, number), daemon=True)
            for caller in callers
            for number in range(threads)
        ]

    def _run(self, caller: Caller, number: int) -> None:
        headers = {"Authorization": f"Bearer {caller.key}"}
        with httpx.Client(headers=headers, trust_env=False) as client:
            while not self._stop.is_set():
                caller.outcomes.append(caller.call(client, number))
                number += 1
                self._stop.wait(caller.pause_s)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(CALL_TIMEOUT_S + 5)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all callers."""
        return [outcome for caller in self.callers for outcome in caller.outcomes]


def tally(outcomes: Sequence[Outcome], key: Callable[[Outcome], object] | None = None) -> str:
    """How many of each, for messages: "200: 412, 429 insufficient_quota: 3"."""
    named = key or (lambda o: f"{o.status} {o.code}".strip())
    counted = Counter(str(named(outcome)) for outcome in outcomes)
    return ", ".join(f"{name}: {count}" for name, count in sorted(counted.items()))
