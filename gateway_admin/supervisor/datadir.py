"""The data directory: one supervisor at a time, and where its embedded servers listen."""

import fcntl
import os
import time
from dataclasses import replace
from pathlib import Path

from gateway_admin.lib.embedded_state import EmbeddedState, Endpoint, free_port, is_free
from gateway_admin.supervisor.embedded import EmbeddedPostgres, EmbeddedValkey
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.pids import is_alive

CLEANUP_S = 20.0  # how long the processes of a killed supervisor may take to end


def lock(data_dir: Path) -> int:
    """Take the directory, or raise StartError; the lock lasts as long as the descriptor."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartError(
            f"The data directory {data_dir} cannot be used ({error.strerror}): "
            "set GATEWAY_DATA_DIR to a directory that you may write to."
        ) from error
    deadline = time.monotonic() + CLEANUP_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if (holder.isdigit() and is_alive(int(holder))) or time.monotonic() > deadline:
                raise StartError(
                    f"Gateway Admin already runs on {data_dir} (process {holder}): "
                    "stop it first, or set GATEWAY_DATA_DIR to another directory."
                ) from None
            time.sleep(0.1)  # its reaper is still stopping what it left
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def embedded_state(data_dir: Path, *, postgres: bool, valkey: bool) -> tuple[EmbeddedState, bool]:
    """Where the embedded servers listen from now on, and whether that has just changed.

    Ports are kept from one start to the next unless somebody else has taken them; passwords
    are kept for good. Servers that outlived their supervisor are stopped here.
    """
    found = EmbeddedState.read(data_dir)
    state = found or EmbeddedState.fresh()
    if postgres:
        EmbeddedPostgres(data_dir / "pg", state.postgres).stop_leftover()
    if valkey:
        EmbeddedValkey(data_dir / "valkey", state.valkey).stop_leftover()
    state = replace(state, postgres=_usable(state.postgres), valkey=_usable(state.valkey))
    if state != found:
        state.write(data_dir)
    return state, state != found


def _usable(endpoint: Endpoint) -> Endpoint:
    return endpoint if is_free(endpoint.port) else replace(endpoint, port=free_port())
