"""Scheduled work of the fleet."""

import structlog
from celery import shared_task
from django.utils import timezone

from gateway_admin.fleet.breakers import transitions_forget
from gateway_admin.fleet.models import BackgroundSign
from gateway_admin.fleet.reports import replicas_forget

log = structlog.get_logger(__name__)


@shared_task(name="fleet.forget_silent_replicas")  # type: ignore[untyped-decorator]
def forget_silent_replicas() -> None:
    """Leave a sign of life, forget what is old.

    Replicas that were not heard of for a day, and what breakers did a month ago.
    A second run at once does no harm.
    """
    BackgroundSign.objects.update_or_create(
        pk=BackgroundSign.WORKER, defaults={"at": timezone.now()}
    )
    if forgotten := replicas_forget():
        log.info("replicas_forgotten", count=forgotten)
    if forgotten := transitions_forget():
        log.info("breaker_transitions_forgotten", count=forgotten)
