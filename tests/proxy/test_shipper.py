"""Delivery: deleted after a 200 only, refused events set aside, never retried for ever."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.control import ControlPlane, ControlPlaneError
from proxy.settings import FleetIdentity
from proxy.shipper import REFUSED_FILE, Shipper
from proxy.spool import PACKED_MAX, Spool
from tests.proxy import control_plane
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import ENVIRONMENT, FLEET_KEY, FLEET_TOKEN
from tests.proxy.events import event


@pytest.fixture
def peer() -> Iterator[ControlPlanePeer]:
    with control_plane.running(ControlPlanePeer()) as running:
        yield running


@pytest.fixture
async def shipper(peer: ControlPlanePeer, tmp_path: Path) -> AsyncIterator[Shipper]:
    control = ControlPlane(FleetIdentity(peer.url, ENVIRONMENT, FLEET_TOKEN, FLEET_KEY, None))
    spool = Spool(tmp_path / "spool", max_bytes=10**7)
    spool.open()
    yield Shipper(spool, control, replica_id="r", state_dir=tmp_path, interval_s=1)
    await control.close()


def fill(shipper: Shipper, count: int) -> list[Any]:
    events = [event() for _ in range(count)]
    for one in events:
        keep(shipper, one)
    return events


def keep(shipper: Shipper, one: Any, *, packed: bool = True) -> None:
    """As a worker does: on the disk first, packed when the answer has left."""
    record = json.dumps(one).encode()
    shipper.spool.append(record)
    if packed and shipper.spool.last is not None:
        shipper.spool.last.pack(record)


async def test_delivered_and_deleted(shipper: Shipper, peer: ControlPlanePeer) -> None:
    events = fill(shipper, 2500)
    await shipper.flush()
    assert set(peer.events) == {one["event_id"] for one in events}
    assert shipper.spool.depth().events == 0
    assert shipper.shipped == 2500


async def test_what_was_not_packed_is_read_from_the_disk(
    shipper: Shipper, peer: ControlPlanePeer
) -> None:
    events = [event() for _ in range(20)]
    for number, one in enumerate(events):
        keep(shipper, one, packed=number % 3 > 0)
    await shipper.flush()
    assert set(peer.events) == {one["event_id"] for one in events}
    assert shipper.shipped == 20


async def test_an_event_that_is_packed_after_it_was_sent_is_not_sent_again(
    shipper: Shipper, peer: ControlPlanePeer
) -> None:
    late = json.dumps(event()).encode()
    shipper.spool.append(late)
    segment = shipper.spool.last
    assert segment is not None
    await shipper.flush()
    segment.pack(late)
    fill(shipper, 1)
    await shipper.flush()
    assert (len(peer.events), peer.duplicates) == (2, 0)


async def test_a_long_outage_keeps_few_batches_in_memory(
    shipper: Shipper, peer: ControlPlanePeer
) -> None:
    peer.usage_status = 503
    segments = []
    for _ in range(3 * PACKED_MAX):
        fill(shipper, 2)
        segments.append(shipper.spool.last)
        shipper.spool.seal()
    assert sum(one is not None and one.batches is not None for one in segments) == PACKED_MAX
    with pytest.raises(ControlPlaneError):
        await shipper.flush()
    peer.usage_status = 200
    await shipper.flush()
    assert len(peer.events) == 6 * PACKED_MAX


@pytest.mark.parametrize("status", [500, 503, 401])
async def test_kept_until_the_control_plane_took_them(
    shipper: Shipper, peer: ControlPlanePeer, status: int
) -> None:
    fill(shipper, 3)
    peer.usage_status = status
    with pytest.raises(ControlPlaneError):
        await shipper.flush()
    assert shipper.spool.depth().events == 3
    peer.usage_status = 200
    await shipper.flush()
    assert len(peer.events) == 3
    assert shipper.spool.depth().events == 0


async def test_refused_events_are_set_aside(
    shipper: Shipper, peer: ControlPlanePeer, tmp_path: Path
) -> None:
    first = fill(shipper, 5)[0]
    peer.refuse_event = lambda e: "too old" if e["event_id"] == first["event_id"] else None
    await shipper.flush()
    assert len(peer.events) == 4
    assert shipper.refused == 1
    line = json.loads((tmp_path / REFUSED_FILE).read_text())
    assert (line["reason"], line["event"]["event_id"]) == ("too old", first["event_id"])
    assert shipper.spool.depth().events == 0


async def test_batch_that_is_never_taken_does_not_block(
    shipper: Shipper, peer: ControlPlanePeer, tmp_path: Path
) -> None:
    fill(shipper, 3)
    peer.usage_status = 400
    await shipper.flush()
    assert shipper.refused == 3
    assert len((tmp_path / REFUSED_FILE).read_text().splitlines()) == 3
    assert shipper.spool.depth().events == 0


async def test_sending_twice_is_harmless(shipper: Shipper, peer: ControlPlanePeer) -> None:
    events = fill(shipper, 2)
    await shipper.flush()
    for one in events:
        keep(shipper, one)
    await shipper.flush()
    assert (len(peer.events), peer.duplicates) == (2, 2)


async def test_events_that_only_memory_holds_are_delivered(
    shipper: Shipper, peer: ControlPlanePeer
) -> None:
    shipper.spool.max_bytes = 0
    fill(shipper, 4)
    await shipper.flush()
    assert len(peer.events) == 4
    assert shipper.spool.depth().events == 0
