"""A look at the shared counters behind the product's back: proofs only."""

import threading
import time
from types import TracebackType

import redis

from gateway_admin.lib.embedded_state import EmbeddedState
from proxy.contract.counters import holds_key, tag
from tests.acceptance.stack import Stack


class Counters:
    """Reads the counters of one environment."""

    def __init__(self, url: str, environment: str = "prod") -> None:
        self.environment = environment
        self.redis = redis.Redis.from_url(url)

    @classmethod
    def of(cls, stack: Stack) -> "Counters":
        state = EmbeddedState.read(stack.installation.data_dir)
        assert state is not None
        return cls(state.redis_url)

    def holds(self) -> int:
        return int(self.redis.zcard(holds_key(self.environment)))

    def names(self) -> list[str]:
        """Keys of all budgets' counters."""
        return [
            key.decode()
            for key in self.redis.scan_iter(match=f"{tag(self.environment)}b:*", count=1000)
        ]

    def read(self, names: list[str]) -> dict[str, dict[str, int]]:
        """s, h and p of each, in nano-dollars, as of one moment."""
        pipeline = self.redis.pipeline(transaction=True)
        for name in names:
            pipeline.hmget(name, "s", "h", "p")
        rows = pipeline.execute()
        return {
            name: {field: int(value or 0) for field, value in zip("shp", row, strict=True)}
            for name, row in zip(names, rows, strict=True)
        }

    def all(self) -> dict[str, dict[str, int]]:
        return self.read(self.names())

    def of_budget(self, budget_id: str) -> dict[str, int]:
        """Sum over the budget's subjects and periods."""
        rows = [row for name, row in self.all().items() if f":{budget_id}:" in name]
        return {field: sum(row[field] for row in rows) for field in "shp"}


class Highest:
    """Watches the counters of a budget; the highest spent + held that was ever seen.

    with Highest(counters, budget_id) as watch: ...
    assert watch.nano <= limit
    """

    def __init__(self, counters: Counters, budget_id: str) -> None:
        self.counters = counters
        self.budget_id = budget_id
        self.nano = 0
        self.samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        names: list[str] = []
        looked_at = 0.0
        while not self._stop.is_set():
            if time.monotonic() - looked_at > 0.05:
                looked_at = time.monotonic()
                names = [n for n in self.counters.names() if f":{self.budget_id}:" in n]
            for row in self.counters.read(names).values():
                self.nano = max(self.nano, row["s"] + row["h"])
                self.samples += 1
            self._stop.wait(0.002)

    def __enter__(self) -> "Highest":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
