"""Work of the catalog that takes longer than a page may."""

from uuid import UUID

from celery import shared_task

from gateway_admin.accounts.models import User
from gateway_admin.catalog.connection_test import connection_test
from gateway_admin.catalog.models import Deployment


@shared_task(name="catalog.run_connection_test", time_limit=120)  # type: ignore[untyped-decorator]
def run_connection_test(deployment_id: str, actor_id: int | None) -> None:
    """One call through the deployment, unless it was deleted meanwhile."""
    deployment = Deployment.objects.filter(pk=UUID(deployment_id)).first()
    if deployment is not None:
        actor = User.objects.filter(pk=actor_id).first() if actor_id else None
        connection_test(deployment=deployment, actor=actor)
