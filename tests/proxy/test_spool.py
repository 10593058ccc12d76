"""The spool: what write(2) accepted survives, what is torn is skipped, nothing is doubled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.spool import MEMORY_MAX_EVENTS, Spool, read_segment, segments_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path, max_bytes=1024 * 1024)
    made.open()
    return made


def records(spool: Spool) -> list[bytes]:
    return [record for path in segments_in(spool.directory) for record in read_segment(path)]


def test_append_and_read(spool: Spool) -> None:
    assert spool.append(b'{"a":1}')
    assert spool.append(b'{"b":2}')
    assert records(spool) == [b'{"a":1}', b'{"b":2}']
    assert spool.depth().events == 2


def test_segment_is_shippable_once_sealed(spool: Spool) -> None:
    spool.append(b"one")
    assert spool.sealed_segments() == []
    spool.seal()
    (segment,) = spool.sealed_segments()
    spool.append(b"two")
    spool.delete(segment)
    assert records(spool) == [b"two"]
    assert spool.depth().events == 1


def test_torn_tail_is_skipped(spool: Spool) -> None:
    spool.append(b"whole")
    spool.append(b"to be torn")
    (segment,) = segments_in(spool.directory)
    with segment.open("r+b") as file:
        file.truncate(segment.stat().st_size - 3)
    assert records(spool) == [b"whole"]


def test_damaged_record_is_not_believed(spool: Spool) -> None:
    spool.append(b"good")
    spool.append(b"evil")
    (segment,) = segments_in(spool.directory)
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    assert records(spool) == [b"good"]


def test_spool_of_the_living_is_left_alone(tmp_path: Path, spool: Spool) -> None:
    spool.append(b"mine")
    other = Spool(tmp_path, max_bytes=1024)
    other.open()
    assert other.adopt() == []
    assert records(spool) == [b"mine"]


def test_spool_of_the_dead_is_adopted_once(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from proxy.spool import Spool;"
        "s = Spool(Path(sys.argv[1]), max_bytes=10**6); s.open();"
        "s.append(b'left behind'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    first, second = (Spool(tmp_path, max_bytes=10**6) for _ in range(2))
    first.open()
    second.open()
    assert len(first.adopt()) == 1
    assert second.adopt() == []
    assert records(first) == [b"left behind"]
    assert first.depth().events == 1
    assert len(first.sealed_segments()) == 1


def test_full_disk_keeps_events_in_memory(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    assert spool.append(b"kept")
    assert spool.depth().disk_error == "No space left on device"
    assert spool.take_memory(10) == [b"kept"]
    monkeypatch.undo()
    spool.retry_disk()
    assert spool.depth().disk_error is None
    assert records(spool) == [b"kept"]


def test_what_fits_nowhere_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=0)
    spool.open()
    for _ in range(MEMORY_MAX_EVENTS):
        assert spool.append(b"x")
    assert not spool.append(b"one too many")
    assert spool.depth().dropped == 1


def test_empty_spool_leaves_no_directory(tmp_path: Path, spool: Spool) -> None:
    spool.close()
    assert list(tmp_path.iterdir()) == []
