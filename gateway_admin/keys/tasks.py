"""Scheduled work on keys. Expiry needs none: replicas check it against their own clock."""

from celery import shared_task

from gateway_admin.keys import policies


@shared_task(name="keys.forget_old_policy_changes")  # type: ignore[untyped-decorator]
def forget_old_policy_changes() -> None:
    """A second run at once finds nothing left to do."""
    policies.forget_old_changes()
