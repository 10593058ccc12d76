"""What `manage.py up --demo` runs beside the product: the simulator and the live traffic."""

import os
import sys
from collections.abc import Collection
from pathlib import Path

from django.conf import settings
from django.db import connection

from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.seed import demo_seed, refuse_production
from gateway_admin.lib.errors import ServiceError
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.plan import NOT_FOR_PROXIES, STAGE_PROXY, STAGE_SITE
from gateway_admin.supervisor.probes import http_ok, local_url
from gateway_admin.supervisor.process import ChildSpec

SIMULATOR, TRAFFIC = "simulator", "demo"


def demo_children(*, data_dir: Path) -> list[ChildSpec]:
    """The children in the order in which they start; StartError in production."""
    try:
        refuse_production()
    except ServiceError as error:
        raise StartError(error.message) from error
    port = state.simulator_port(data_dir)
    simulator = ChildSpec(
        name=SIMULATOR,
        stage=STAGE_SITE,
        command=lambda: [
            sys.executable,
            "-m",
            "gateway_admin.demo.simulator",
            "--port",
            str(port),
        ],
        environment=_environment(data_dir, without=NOT_FOR_PROXIES),
        probe=http_ok(f"http://127.0.0.1:{port}/__health"),
        cwd=settings.BASE_DIR,
    )
    traffic = ChildSpec(
        name=TRAFFIC,
        stage=STAGE_PROXY + 1,  # stops before the proxies it calls
        command=lambda: [
            sys.executable,
            "manage.py",
            "demo_seed",
            "--then-traffic",
            proxy_url(),
        ],
        environment=_environment(data_dir),
        probe=lambda: True,  # it has no port; that it runs is all there is to see
        grace_s=5.0,
        cwd=settings.BASE_DIR,
    )
    return [simulator, traffic]


def demo_prepare(*, data_dir: Path) -> list[str]:
    """Seed after the migrations; returns the lines with which the start greets.

    Raises StartError where somebody's real data is.
    """
    try:
        demo_seed(data_dir=data_dir, simulator_url=state.simulator_url(data_dir))
    except ServiceError as error:
        raise StartError(error.message) from error
    finally:
        connection.close()
    stored = state.stored_read(data_dir)
    if stored is None:
        return ["The demonstration's passwords are gone: see docs/demo.md, “Starting over”."]
    logins = [
        f"    {row['role']:<10} {row['email']:<26} {row['password']}" for row in stored["logins"]
    ]
    return ["Demonstration data. Sign in as one of its invented people:", *logins]


def proxy_url() -> str:
    """Where the proxy of the environment with the live traffic listens."""
    slugs = list(settings.PROXY_ENVIRONMENTS)
    offset = slugs.index(tables.MAIN) if tables.MAIN in slugs else 0
    return local_url(settings.PROXY_HOST, settings.PROXY_PORT + offset)


def _environment(data_dir: Path, *, without: Collection[str] = ()) -> dict[str, str]:
    dropped = {"PYTHONDONTWRITEBYTECODE", *without}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith("GATEWAY_ADMIN_")
    }
    return kept | {"PYTHONUNBUFFERED": "1", "GATEWAY_DATA_DIR": str(data_dir)}
