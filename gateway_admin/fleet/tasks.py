"""Scheduled work of the fleet."""

import structlog
from celery import shared_task

from gateway_admin.fleet.reports import replicas_forget

log = structlog.get_logger(__name__)


@shared_task(name="fleet.forget_silent_replicas")  # type: ignore[untyped-decorator]
def forget_silent_replicas() -> None:
    """Forget replicas that were not heard of for a day. A second run at once does no harm."""
    if forgotten := replicas_forget():
        log.info("replicas_forgotten", count=forgotten)
