"""Which processes `manage.py up` runs, and with what."""

import os
import sys
from pathlib import Path

from django.conf import settings

from gateway_admin.celery import app as celery_app
from gateway_admin.supervisor.bootstrap import fleet_file
from gateway_admin.supervisor.embedded import EmbeddedPostgres, EmbeddedValkey
from gateway_admin.supervisor.errors import StartError
from gateway_admin.supervisor.probes import http_ok, local_url, require_free
from gateway_admin.supervisor.process import ChildSpec

STAGE_SERVERS, STAGE_SITE, STAGE_PROXY = 0, 1, 2
POSTGRES, VALKEY, WEB, WORKER, BEAT = "postgres", "valkey", "web", "worker", "beat"

# The data plane holds nothing of the control plane's; LiteLLM would even use DATABASE_URL.
NOT_FOR_PROXIES = frozenset(
    {
        "DATABASE_URL",
        "REDIS_URL",
        "DJANGO_SETTINGS_MODULE",
        "EMAIL_URL",
        "GATEWAY_SECRET_KEY",
        "GATEWAY_ENCRYPTION_KEYS",
        "GATEWAY_KEY_PEPPER",
        "GATEWAY_METRICS_TOKEN",
    }
)
BOOTSTRAP_ONLY = "GATEWAY_ADMIN_"  # prefix of what the supervisor alone uses
PROXY_GRACE_MARGIN_S = 12.0
DEFAULT_PROXY_GRACE_S = 20.0


def servers(postgres: EmbeddedPostgres | None, valkey: EmbeddedValkey | None) -> list[ChildSpec]:
    named = [(POSTGRES, postgres, 30.0), (VALKEY, valkey, 15.0)]
    return [
        ChildSpec(
            name=name,
            stage=STAGE_SERVERS,
            command=server.command,
            environment=_base_environment(),
            probe=server.is_ready,
            prepare=server.prepare,
            stop_signal=server.stop_signal,
            grace_s=grace_s,
            cwd=server.data_dir.parent,
        )
        for name, server, grace_s in named
        if server is not None
    ]


def site(data_dir: Path) -> dict[str, ChildSpec]:
    """Web, worker and beat by name."""
    environment = _site_environment()
    web = ChildSpec(
        name=WEB,
        stage=STAGE_SITE,
        command=_web_command,
        environment=environment,
        probe=http_ok(local_url(settings.WEB_HOST, settings.WEB_PORT) + "/livez"),
        cwd=settings.BASE_DIR,
    )
    quiet = ["-W", "ignore:You're running the worker with superuser"]  # embedded mode may
    celery = [sys.executable, *quiet, "-m", "celery", "-A", "gateway_admin"]
    level = f"--loglevel={settings.LOG_LEVEL}"
    options = ["--concurrency=2", "--without-gossip", "--without-mingle", f"-n{WORKER}@%h"]
    # Celery would load every page to run Django's checks; `make check` has run them.
    schedulers = environment | {"CELERY_SKIP_CHECKS": "1"}
    worker = ChildSpec(
        name=WORKER,
        stage=STAGE_SITE,
        command=lambda: [*celery, "--quiet", "worker", level, *options],
        environment=schedulers,
        probe=_worker_answers,
        cwd=settings.BASE_DIR,
    )
    schedule = f"--schedule={data_dir / 'beat-schedule'}"
    beat = ChildSpec(
        name=BEAT,
        stage=STAGE_SITE,
        command=lambda: [*celery, "--quiet", "beat", level, schedule, "--pidfile="],
        environment=schedulers,
        probe=lambda: True,  # it has no port; that it runs is all there is to see
        cwd=settings.BASE_DIR,
    )
    return {WEB: web, WORKER: worker, BEAT: beat}


def _web_command() -> list[str]:
    arguments = ["--interface", "wsgi", "--host", settings.WEB_HOST]
    arguments += ["--port", str(settings.WEB_PORT), "--workers", "1"]
    arguments += ["--blocking-threads", str(settings.WEB_THREADS), "--respawn-failed-workers"]
    arguments += ["--workers-kill-timeout", "10", "--no-ws", "--log-level", "error"]
    return [sys.executable, "-m", "granian", *arguments, "gateway_admin.wsgi:application"]


def _worker_answers() -> bool:
    return bool(celery_app.control.ping(timeout=0.5, limit=1))


def proxies(data_dir: Path) -> list[ChildSpec]:
    return [
        _proxy(data_dir, slug, settings.PROXY_PORT + offset)
        for offset, slug in enumerate(settings.PROXY_ENVIRONMENTS)
    ]


def proxy_name(slug: str) -> str:
    return f"proxy {slug}"


def _proxy(data_dir: Path, slug: str, port: int) -> ChildSpec:
    state_dir = data_dir / "proxy" / slug
    grace_s = float(os.environ.get("GATEWAY_SHUTDOWN_GRACE_S") or DEFAULT_PROXY_GRACE_S)
    environment = _base_environment(NOT_FOR_PROXIES) | {
        "GATEWAY_FLEET_FILE": str(fleet_file(slug)),
        "GATEWAY_PROXY_STATE_DIR": str(state_dir),
        "GATEWAY_PROXY_HOST": settings.PROXY_HOST,
        "GATEWAY_PROXY_PORT": str(port),
        "GATEWAY_PROXY_WORKERS": str(settings.PROXY_WORKERS),
    }
    return ChildSpec(
        name=proxy_name(slug),
        stage=STAGE_PROXY,
        command=lambda: [sys.executable, "-m", "proxy.launch"],
        environment=environment,
        probe=http_ok(local_url(settings.PROXY_HOST, port) + "/health/liveliness"),
        prepare=lambda: state_dir.mkdir(parents=True, exist_ok=True, mode=0o700),
        grace_s=grace_s + PROXY_GRACE_MARGIN_S,
        cwd=settings.BASE_DIR,
    )


def _base_environment(without: frozenset[str] = frozenset()) -> dict[str, str]:
    """The present environment for a child; compiled modules are kept, or each start is slow."""
    dropped = {"PYTHONDONTWRITEBYTECODE", *without}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and not name.startswith(BOOTSTRAP_ONLY)
    }
    return kept | {"PYTHONUNBUFFERED": "1"}


def _site_environment() -> dict[str, str]:
    return _base_environment() | {"GATEWAY_DATA_DIR": str(settings.DATA_DIR)}


def require_ports() -> None:
    """Raise StartError for the first port that is taken."""
    require_free(settings.WEB_HOST, settings.WEB_PORT, setting="GATEWAY_WEB_PORT")
    for offset, slug in enumerate(settings.PROXY_ENVIRONMENTS):
        port = settings.PROXY_PORT + offset
        setting = "GATEWAY_PROXY_PORT"
        if offset:
            setting += f" (the proxy of {slug} listens {offset} above it)"
        require_free(settings.PROXY_HOST, port, setting=setting)


def require_static_files() -> None:
    """Production serves files by their hashed names, which `collectstatic` makes."""
    settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
    if settings.PRODUCTION and not (settings.STATIC_ROOT / "staticfiles.json").exists():
        raise StartError(
            f"{settings.STATIC_ROOT} has no static files: run manage.py collectstatic --noinput."
        )
