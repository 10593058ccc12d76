"""A Valkey of a test's own, which it may stop and start again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway_admin.lib import bell
from gateway_admin.lib.embedded_state import EmbeddedState
from gateway_admin.supervisor.embedded import EmbeddedValkey, wait_until_ready
from gateway_admin.usage import counter_store

START_S = 20


class PrivateValkey:
    """The product's own Redis in this test; `stop` is an outage, `start` its end."""

    def __init__(self, home: Path) -> None:
        self.server = EmbeddedValkey(home, EmbeddedState.fresh().valkey, throwaway=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.server.url

    def start(self) -> None:
        self.server.prepare()
        self.process = subprocess.Popen(
            self.server.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_ready([self.server], START_S)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(START_S)
            self.process = None


def forget_connections() -> None:
    """Clients of a process are made once, for the address that the settings had then."""
    bell._client.cache_clear()
    counter_store.forget_connection()


@pytest.fixture
def redis_server(tmp_path: Path, settings: Any) -> Iterator[PrivateValkey]:
    """Running at first; cache, bell and counters of this process use it."""
    server = PrivateValkey(tmp_path / "valkey")
    server.start()
    settings.REDIS_URL = server.url
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": server.url}}
    forget_connections()
    yield server
    server.stop()
    forget_connections()
