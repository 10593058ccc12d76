"""Where a change stands: a draft, or published by itself."""

import pytest

from gateway_admin.catalog import services
from gateway_admin.catalog.models import Environment
from gateway_admin.lib.errors import Conflict
from tests.catalog import build

pytestmark = pytest.mark.django_db


def test_an_environment_publishes_by_itself(
    django_capture_on_commit_callbacks: type,
) -> None:
    dev = Environment.objects.get(slug="dev")
    with django_capture_on_commit_callbacks(execute=True):
        build.deployment("d1", behind=build.credential(environment=dev))
    revision = dev.revisions.order_by("-number").first()
    assert revision is not None
    assert [row["name"] for row in revision.document["deployments"]] == ["d1"]


def test_other_environments_wait(django_capture_on_commit_callbacks: type) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        build.deployment()
    assert not build.prod().revisions.exists()


def test_a_secret_in_force_is_not_deleted(django_capture_on_commit_callbacks: type) -> None:
    dev = Environment.objects.get(slug="dev")
    with django_capture_on_commit_callbacks(execute=True):
        deployment = build.deployment("d1", behind=build.credential(environment=dev))
    Environment.objects.update(auto_publish=False)
    services.deployment_delete(actor=None, deployment=deployment)
    with pytest.raises(Conflict, match=r"Revision \d+, which is in force, still uses"):
        services.credential_delete(actor=None, credential=deployment.credential)
