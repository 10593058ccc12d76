"""How long `manage.py up` takes until web and proxy can be used.

    python -m tests.bench.start

A fresh data directory, started twice: the first start makes the servers' directories,
migrates and loads prices. Run it on a machine that does nothing else.
"""

import os
import time

from tests.supervisor.installation import Installation, serves, status

SECOND_START_BOUND_S = 15.0
GIVE_UP_S = 180.0


def main() -> None:
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)  # noqa: T201
    installation = Installation()
    try:
        for name in ("first", "second"):
            took_s = _start(installation)
            print(f"{name} start: {took_s:.1f} s", flush=True)  # noqa: T201
    finally:
        installation.remove()
    assert took_s <= SECOND_START_BOUND_S, f"{took_s:.1f} s"


def _start(installation: Installation) -> float:
    """Seconds until the web is ready and the proxy is past its import of LiteLLM."""
    up = installation.up()
    up.wait_until(
        lambda: status(f"{installation.web}/readyz") == 200 and serves(installation),
        "web and proxy can be used",
        timeout_s=GIVE_UP_S,
    )
    took_s = time.monotonic() - up.began
    assert up.stop() == 0, up.output
    return took_s


if __name__ == "__main__":
    main()
