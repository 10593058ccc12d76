"""Whether a server answers. Blocking and quick: a probe never waits longer than 2 seconds."""

import http.client
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import redis

from gateway_admin.supervisor.errors import StartError

PROBE_TIMEOUT_S = 2.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (compared with)


def reachable_host(host: str) -> str:
    """Where a server that listens on `host` is reached from this machine."""
    return WILDCARDS.get(host, host)


def local_url(host: str, port: int) -> str:
    reached = reachable_host(host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def http_ok(url: str) -> Callable[[], bool]:
    """A probe: GET answers 200."""
    parts = urlsplit(url)

    def probe() -> bool:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=PROBE_TIMEOUT_S
        )
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def database_error(url: str) -> str | None:
    """Why PostgreSQL cannot be used, without the password; None: it can."""
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.Error as error:
        return " ".join(str(error).split())
    return None


def redis_error(url: str) -> str | None:
    """Why Valkey or Redis cannot be used, without the password; None: it can."""
    try:
        with redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def require_free(host: str, port: int, *, setting: str) -> None:
    """Raise StartError when somebody else listens there already."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise StartError(
                f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens "
                f"there, or set {setting} to another port."
            ) from error
