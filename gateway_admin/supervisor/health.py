"""`/livez`, `/readyz`, `/metrics`: for probes and for Prometheus, not for people.

They are answered before sessions and before the check of the host name, because probes call
a pod by its address. None of them tells anything that needs protection but `/metrics`: that
one is open to this machine, or to whoever presents GATEWAY_METRICS_TOKEN.
"""

import hmac
import ipaddress
from collections.abc import Callable

import redis
import structlog
from django.conf import settings
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django_prometheus.exports import ExportToDjangoView

from gateway_admin.supervisor.bootstrap import pending_migrations

log = structlog.get_logger(__name__)
REDIS_TIMEOUT_S = 2


def livez(request: HttpRequest) -> HttpResponse:
    """The process answers. Nothing else: a restart would not mend a database."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """200 when database and tables are usable, else 503; each part with its reason.

    Without Redis the site still publishes and takes usage in, so it stays in service.
    """
    checks = {"database": _database(), "redis": _redis()}
    checks["migrations"] = _migrations() if checks["database"] is None else "not known"
    ready = checks["database"] is None and checks["migrations"] is None
    status = "unavailable" if not ready else "ok" if checks["redis"] is None else "degraded"
    return JsonResponse(
        {
            "status": status,
            "checks": {name: reason or "ok" for name, reason in checks.items()},
        },
        status=200 if ready else 503,
    )


def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format."""
    if not _may_read_metrics(request):
        return JsonResponse(
            {"error": "Call from this machine, or send GATEWAY_METRICS_TOKEN as a bearer token."},
            status=403,
        )
    response: HttpResponse = ExportToDjangoView(request)
    return response


VIEWS: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    "/livez": livez,
    "/readyz": readyz,
    "/metrics": metrics,
}


def _database() -> str | None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as error:
        log.warning("readiness_database", error=str(error).split("\n")[0])
        return "PostgreSQL does not answer"
    return None


def _redis() -> str | None:
    try:
        with redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        ) as client:
            client.ping()
    except redis.RedisError as error:
        log.warning("readiness_redis", error=str(error))
        return "Redis does not answer"
    return None


def _migrations() -> str | None:
    """Tables never go back while a process lives: once complete is complete for good."""
    if not _tables.complete:
        try:
            pending = pending_migrations()
        except Error as error:
            log.warning("readiness_migrations", error=str(error).split("\n")[0])
            return "PostgreSQL does not answer"
        if pending:
            return f"{len(pending)} migrations are pending, first {pending[0]}"
        _tables.complete = True
    return None


class _Tables:
    complete = False


_tables = _Tables()


def _may_read_metrics(request: HttpRequest) -> bool:
    if token := settings.METRICS_TOKEN:
        presented = request.headers.get("Authorization", "")
        return hmac.compare_digest(presented.encode(), f"Bearer {token}".encode())
    forwarded = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return not forwarded and _is_loopback(request.META.get("REMOTE_ADDR", ""))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
