"""`python -m proxy.launch`: one replica of the data plane.

    1. check settings, lock the state directory, bind the port
    2. fork the porter: it answers probes, and refusals from the last good state
    3. import LiteLLM once, freeze it, fork the workers; they share the listening socket
       and the imported pages, so a crashed worker is back in a second
    4. when the first worker serves, the porter stops accepting, answers, and leaves
    5. SIGTERM: workers finish their requests (bounded), deliver usage, exit

Steps 2 to 5 are launcher.py's; what the processes do is serving.py's.
"""

import fcntl
import logging
import os
import socket
import sys
import time

from proxy.errors import scrub
from proxy.launcher import Launcher, LaunchError
from proxy.litellm_environment import prepare_environment
from proxy.serving import BACKLOG
from proxy.settings import ProxySettings, SettingsError, load_settings
from proxy.state import StateDirectory

logger = logging.getLogger("gateway.launch")

LOCK_FILE = "launch.lock"
BIND_PATIENCE_S = 5.0
# Of a connection to a client, in the kernel. What a slow reader leaves there was translated
# already, and LiteLLM keeps some twenty times its size of each stream.
SEND_BUFFER_BYTES = 256 * 1024


def bind(settings: ProxySettings) -> socket.socket:
    """Listening socket; a predecessor that is still draining gets a moment to let go."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    deadline = time.monotonic() + BIND_PATIENCE_S
    while True:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if time.monotonic() >= deadline:
                raise LaunchError(
                    f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                    "choose another GATEWAY_PROXY_PORT or stop what uses it"
                ) from error
            time.sleep(0.2)
        else:
            listener.setblocking(False)
            return listener


def lock_state(settings: ProxySettings) -> int:
    """One launcher per state directory; the descriptor holds the lock."""
    descriptor = os.open(settings.state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LaunchError(
            f"another proxy already uses {settings.state_dir}: set GATEWAY_PROXY_STATE_DIR"
        ) from None
    return descriptor


class ScrubbingFormatter(logging.Formatter):
    """Whatever a library logs, nothing that looks like a key reaches a log line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, scrubbed."""
        return scrub(super().format(record))


def configure_logging(settings: ProxySettings) -> None:
    """One line per record on standard error; libraries only when something is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        ScrubbingFormatter("%(asctime)s %(levelname)s %(name)s [%(process)d] %(message)s")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("gateway").setLevel(settings.log_level)
    # uvicorn's "invalid HTTP request" and the like are the client's affair.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def main() -> int:
    """Entry point."""
    try:
        settings = load_settings()
        configure_logging(settings)
        state = StateDirectory(settings.state_dir)
        state.prepare()
        state.replica_id()
        lock = lock_state(settings)
        listener = bind(settings)
        prepare_environment(settings)
    except (SettingsError, LaunchError, OSError) as error:
        print(f"proxy: {error}", file=sys.stderr)  # noqa: T201  # before logging can be trusted
        return 2
    from proxy.metrics import prepare_directory

    prepare_directory(state.metrics)
    try:
        return Launcher(settings, listener, lock).run()
    except LaunchError as error:
        logger.critical("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
