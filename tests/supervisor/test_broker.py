"""Tasks that pages queue go to our broker."""

from django.conf import settings

from gateway_admin.accounts.services import DAYS_RECUT_TASK
from gateway_admin.catalog import tasks
from gateway_admin.celery import app


def test_it_queues_at_the_configured_broker() -> None:
    task = next(value for value in vars(tasks).values() if hasattr(value, "apply_async"))
    assert task.app.conf.broker_url == settings.REDIS_URL


def test_a_task_that_is_queued_by_name_exists() -> None:
    app.loader.import_default_modules()
    assert DAYS_RECUT_TASK in app.tasks
