"""Scheduled work on the ledger."""

import structlog
from celery import shared_task

from gateway_admin.usage import partitions, rollups

log = structlog.get_logger(__name__)


@shared_task(name="usage.maintain_partitions")  # type: ignore[untyped-decorator]
def maintain_partitions() -> None:
    """Hourly: partitions ahead, retention, and days re-cut after a change of time zone."""
    done = partitions.maintain()
    if done and any(done.values()):
        log.info("usage_partitions", **done)
    if recut := rollups.follow_time_zone():
        log.info("usage_days_recut", time_zone=recut)
