"""Where the embedded servers of a data directory listen, so that every command finds them.

`manage.py up` writes `embedded.json` (mode 0600: it holds both passwords); the settings
read it when DATABASE_URL or REDIS_URL is not set.
"""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
FILE_NAME = "embedded.json"


@dataclass(frozen=True)
class Endpoint:
    """A server on the loopback interface and its password."""

    port: int
    password: str

    @classmethod
    def fresh(cls) -> "Endpoint":
        return cls(port=free_port(), password=secrets.token_urlsafe(24))


@dataclass(frozen=True)
class EmbeddedState:
    postgres: Endpoint
    valkey: Endpoint

    @property
    def database_url(self) -> str:
        server = self.postgres
        return f"postgres://gateway:{server.password}@{LOOPBACK}:{server.port}/gateway"

    @property
    def redis_url(self) -> str:
        return f"redis://:{self.valkey.password}@{LOOPBACK}:{self.valkey.port}/0"

    @classmethod
    def fresh(cls) -> "EmbeddedState":
        return cls(postgres=Endpoint.fresh(), valkey=Endpoint.fresh())

    @classmethod
    def read(cls, data_dir: Path) -> "EmbeddedState | None":
        """None when this data directory never had embedded servers."""
        try:
            stored = json.loads((data_dir / FILE_NAME).read_text())
        except FileNotFoundError:
            return None
        return cls(Endpoint(**stored["postgres"]), Endpoint(**stored["valkey"]))

    def write(self, data_dir: Path) -> None:
        temporary = data_dir / (FILE_NAME + ".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(data_dir / FILE_NAME)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen there on the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
