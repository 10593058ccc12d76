"""What was served, counted independently of whoever asked.

One row per (kind, model, masked credential). `requests` = ok + errors + aborted + in flight.
Tokens are what was produced: all of them for an answer that was sent whole; for a stream that
ended early the whole input and the output tokens sent until then; none when the failure or
the disconnect came before the answer began. Input includes cached reads and writes, output
includes reasoning. Secrets never get here: credentials arrive masked.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from gateway_admin.demo.simulator.wire import Usage

DETAIL_LIMIT = 50_000
Outcome = Literal["ok", "error", "aborted"]
_COUNTS = (
    "requests",
    "ok",
    "errors",
    "aborted",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def mask(secret: str) -> str:
    """Return what may be shown of a credential: its last 4 characters, if it has 8 or more."""
    if not secret:
        return "none"
    return f"...{secret[-4:]}" if len(secret) >= 8 else "..."


@dataclass(slots=True)
class Entry:
    """One request. Latency is from its arrival to its last byte, in milliseconds."""

    serial: int
    kind: str
    endpoint: str
    model: str
    credential: str
    started_at: float  # seconds since 1970
    outcome: Outcome | Literal["in_flight"] = "in_flight"
    status: int = 0
    fault: str | None = None
    streaming: bool = False
    response_id: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    chunks_sent: int = 0
    latency_ms: float = 0.0

    def charge(self, usage: Usage, output_tokens: int | None = None) -> None:
        """Book the usage; `output_tokens` is what was sent when that is less than all."""
        self.input_tokens = usage.input_tokens
        self.cache_read_tokens = usage.cache_read_tokens
        self.cache_write_tokens = usage.cache_write_tokens
        whole = output_tokens is None or output_tokens >= usage.output_tokens
        self.output_tokens = usage.output_tokens if output_tokens is None else output_tokens
        self.reasoning_tokens = usage.reasoning_tokens if whole else 0


@dataclass(slots=True)
class Row:
    """Counts of one (kind, model, credential)."""

    kind: str
    model: str
    credential: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))


class Ledger:
    """Counts requests. Used from one event loop, hence without locks."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._serial = 0
        self._open: dict[int, Entry] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything, including what becomes of requests that are under way."""
        self._rows: dict[tuple[str, str, str], Row] = {}
        self._detail: deque[Entry] = deque(maxlen=DETAIL_LIMIT)
        self._open.clear()
        self._most_open = 0

    def open(self, *, kind: str, endpoint: str, model: str, credential: str) -> Entry:
        """Begin a request."""
        self._serial += 1
        entry = Entry(self._serial, kind, endpoint, model, credential, self._clock())
        self._open[entry.serial] = entry
        self._most_open = max(self._most_open, len(self._open))
        self._row(entry).counts["requests"] += 1
        return entry

    def close(self, entry: Entry, outcome: Outcome, status: int) -> None:
        """Finish a request. Whatever was charged on the entry is counted now."""
        entry.outcome, entry.status = outcome, status
        entry.latency_ms = round((self._clock() - entry.started_at) * 1000, 3)
        if self._open.pop(entry.serial, None) is None:
            return  # begun before a reset
        counts = self._row(entry).counts
        counts["errors" if outcome == "error" else outcome] += 1
        for name in _COUNTS[4:]:
            counts[name] += getattr(entry, name)
        self._detail.append(entry)

    def report(self, *, detail: bool = False) -> dict[str, Any]:
        """Return rows and totals, and with `detail` the last requests, oldest first."""
        rows = sorted(self._rows.values(), key=lambda row: (row.kind, row.model, row.credential))
        totals = {name: sum(row.counts[name] for row in rows) for name in _COUNTS}
        report: dict[str, Any] = {
            "rows": [
                {"kind": row.kind, "model": row.model, "credential": row.credential, **row.counts}
                for row in rows
            ],
            "totals": totals,
            "in_flight": len(self._open),
            "most_in_flight": self._most_open,  # since the last reset
        }
        if detail:
            report["requests"] = [_describe(entry) for entry in self._detail]
        return report

    def _row(self, entry: Entry) -> Row:
        key = (entry.kind, entry.model, entry.credential)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(*key)
        return row


def _describe(entry: Entry) -> dict[str, Any]:
    started = datetime.fromtimestamp(entry.started_at, UTC).isoformat()
    return {**asdict(entry), "started_at": started}
