"""Processes of an earlier start, on systems with and without /proc and ps."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway_admin.supervisor import pids
from gateway_admin.supervisor.errors import StartError


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:  # noqa: S607
        yield process.pid
        process.kill()


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pids, "PROC", tmp_path)


def test_linux_needs_no_program(sleeper: int, no_programs: None) -> None:
    assert pids.runs_program(sleeper, "sleep")
    assert not pids.runs_program(sleeper, "postgres")


@pytest.mark.skipif(shutil.which("ps") is None, reason="asks ps, which is not installed")
def test_elsewhere_ps_is_asked(sleeper: int, no_proc: None) -> None:
    assert pids.runs_program(sleeper, "sleep")
    assert not pids.runs_program(sleeper, "postgres")


def test_without_both_it_says_what_to_install(
    sleeper: int, no_proc: None, no_programs: None
) -> None:
    with pytest.raises(StartError, match="Install ps"):
        pids.runs_program(sleeper, "postgres")
