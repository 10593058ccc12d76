"""Instruments that cost a request next to nothing: what changes waits here until `flush`.

prometheus_client takes a lock and writes to a mapped file for each change, 1.5 us a time,
and a request makes twenty. Here a change is an addition in plain Python; `Tally.flush`
writes the totals to prometheus_client's own instruments. A worker calls it twice a second,
whenever it is asked for its metrics, and when it stops.

Constructors and methods are prometheus_client's, as far as we use them. Not thread-safe:
changed from the event loop alone. Totals are kept from the start, not differences, so what
is told equals what prometheus_client would have, to the last bit.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal, Protocol, Self

import prometheus_client
from prometheus_client import CollectorRegistry

GaugeMode = Literal["livesum", "livemin", "livemax", "livemostrecent"]


class _Series(Protocol):
    def tell(self) -> None:
        """Write what changed to prometheus_client's instrument."""


class Tally(CollectorRegistry):
    """A registry that knows which of its series changed."""

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[_Series] = []

    def flush(self) -> None:
        """Tell all that changed since the last time."""
        changed = self.changed[:]
        del self.changed[: len(changed)]
        for series in changed:
            series.tell()


# prometheus_client's instruments, told whole totals. `labels` gives the same class again.


class _RealCounter(prometheus_client.Counter):
    def value(self) -> float:
        return float(self._value.get())

    def tell(self, total: float) -> None:
        self._value.set(total)


class _RealGauge(prometheus_client.Gauge):
    def tell(self, value: float, moment: float) -> None:
        """`moment` decides which worker is believed, where the most recent one is."""
        self._value.set(value, timestamp=moment)


class _RealHistogram(prometheus_client.Histogram):
    @property
    def bounds(self) -> list[float]:
        return self._upper_bounds

    def values(self) -> tuple[list[float], float]:
        return [float(bucket.get()) for bucket in self._buckets], float(self._sum.get())

    def tell(self, index: int, count: float) -> None:
        self._buckets[index].set(count)

    def tell_sum(self, total: float) -> None:
        self._sum.set(total)


class Counter:
    """Only rises."""

    __slots__ = ("_changed", "_real", "_series", "_total", "_waits")

    def __init__(
        self, name: str, documentation: str, labelnames: Sequence[str] = (), *, registry: Tally
    ) -> None:
        real = _RealCounter(name, documentation, labelnames, registry=registry)
        self._begin(real, registry.changed, is_family=bool(labelnames))

    def _begin(self, real: _RealCounter, changed: list[_Series], *, is_family: bool) -> None:
        self._real, self._changed, self._waits = real, changed, False
        self._series: dict[tuple[str, ...], Self] = {}
        if not is_family:  # else there is nothing to add to: `inc` fails
            self._total = real.value()

    def labels(self, *values: str) -> Self:
        """The series of these labels' values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self.__class__.__new__(self.__class__)
            found._begin(self._real.labels(*values), self._changed, is_family=False)
        return found

    def inc(self, amount: float = 1) -> None:
        """Count so many more."""
        if amount < 0:
            raise ValueError("a counter only rises")
        self._total += amount
        if not self._waits:
            self._waits = True
            self._changed.append(self)

    def tell(self) -> None:
        """Write the total to prometheus_client's instrument."""
        self._waits = False
        self._real.tell(self._total)


class Gauge:
    """A figure as it is now."""

    __slots__ = ("_changed", "_dated", "_moment", "_real", "_series", "_value", "_waits")

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: Tally,
        multiprocess_mode: GaugeMode,
    ) -> None:
        real = _RealGauge(
            name, documentation, labelnames, registry=registry, multiprocess_mode=multiprocess_mode
        )
        dated = multiprocess_mode == "livemostrecent"
        self._begin(real, registry.changed, dated=dated, is_family=bool(labelnames))

    def _begin(
        self, real: _RealGauge, changed: list[_Series], *, dated: bool, is_family: bool
    ) -> None:
        self._real, self._changed, self._waits = real, changed, False
        self._dated, self._moment = dated, 0.0
        self._series: dict[tuple[str, ...], Self] = {}
        if not is_family:
            self._value = 0.0

    def labels(self, *values: str) -> Self:
        """The series of these labels' values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self.__class__.__new__(self.__class__)
            found._begin(
                self._real.labels(*values), self._changed, dated=self._dated, is_family=False
            )
        return found

    def set(self, value: float) -> None:
        """It is this much."""
        self._value = value
        if self._dated:
            self._moment = time.time()
        if not self._waits:
            self._waits = True
            self._changed.append(self)

    def inc(self, amount: float = 1) -> None:
        """It is so much more."""
        self.set(self._value + amount)

    def dec(self, amount: float = 1) -> None:
        """It is so much less."""
        self.set(self._value - amount)

    def tell(self) -> None:
        """Write the value to prometheus_client's instrument."""
        self._waits = False
        self._real.tell(float(self._value), self._moment)


class Histogram:
    """How often, by size."""

    __slots__ = ("_bounds", "_changed", "_counts", "_real", "_series", "_sum", "_told", "_waits")

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: Sequence[str] = (),
        *,
        registry: Tally,
        buckets: Sequence[float],
    ) -> None:
        real = _RealHistogram(name, documentation, labelnames, registry=registry, buckets=buckets)
        self._begin(real, registry.changed, is_family=bool(labelnames))

    def _begin(self, real: _RealHistogram, changed: list[_Series], *, is_family: bool) -> None:
        self._real, self._changed, self._waits = real, changed, False
        self._series: dict[tuple[str, ...], Self] = {}
        if not is_family:
            self._bounds = real.bounds
            self._counts, self._sum = real.values()
            self._told = self._counts[:]

    def labels(self, *values: str) -> Self:
        """The series of these labels' values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = self.__class__.__new__(self.__class__)
            found._begin(self._real.labels(*values), self._changed, is_family=False)
        return found

    def observe(self, amount: float) -> None:
        """One more, of this size (a number: NaN has no place among the bounds)."""
        self._counts[bisect_left(self._bounds, amount)] += 1.0
        self._sum += amount
        if not self._waits:
            self._waits = True
            self._changed.append(self)

    def tell(self) -> None:
        """Write sum and counts to prometheus_client's instrument, those that changed."""
        self._waits = False
        self._real.tell_sum(self._sum)
        for index, count in enumerate(self._counts):
            if count != self._told[index]:
                self._real.tell(index, count)
                self._told[index] = count
