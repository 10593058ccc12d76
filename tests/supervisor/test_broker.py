"""Tasks that pages queue go to our broker."""

from django.conf import settings

from gateway_admin.catalog import tasks


def test_it_queues_at_the_configured_broker() -> None:
    task = next(value for value in vars(tasks).values() if hasattr(value, "apply_async"))
    assert task.app.conf.broker_url == settings.REDIS_URL
