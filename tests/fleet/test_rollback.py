"""revision_rollback: an earlier document is written back to the rows and published."""

from typing import Any

import pytest

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    FallbackChain,
    Model,
    ModelAlias,
    Price,
    Provider,
)
from gateway_admin.fleet.diff import diff_documents
from gateway_admin.fleet.documents import render
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import pending_count
from gateway_admin.fleet.services import revision_publish, revision_rollback
from gateway_admin.lib.errors import Conflict
from proxy.contract import document_digest
from tests import builders

pytestmark = pytest.mark.django_db

# What revisions did not state before budgets, breakers and the cache came.
LATER_FIELDS = (
    "total_timeout_s",
    "retry_backoff_s",
    "default_output_tokens",
    "on_counter_outage",
    "breaker",
    "cache",
)


@pytest.fixture
def claude(prod: Any, gpt: Any) -> Any:
    return builders.deployment(
        environment=prod,
        name="claude",
        model=builders.model("claude"),
        provider=builders.provider("anthropic"),
        prices={"input_token": "0.000003", "output_token": "0.000015"},
    )


@pytest.fixture
def first(prod: Any, gpt: Any, claude: Any, people: Any) -> Any:
    """A published environment with one of everything."""
    prod.default_model = "default"
    prod.save()
    builders.alias("default", gpt.model, environment=prod)
    builders.chain(gpt.model, [claude.model], environment=prod)
    return revision_publish(environment=prod, actor=people.admin)


def back(revision: Any, people: Any) -> Any:
    """Publish what the rows are now, roll back, return what still differs."""
    revision_publish(environment=revision.environment, actor=people.admin)
    published = revision_rollback(revision=revision, actor=people.admin)
    assert published.number == 3
    assert pending_count(revision.environment) == 0
    return published, [c.text for c in diff_documents(revision.document, published.document)]


def test_it_restores_every_field(prod: Any, gpt: Any, first: Any, people: Any) -> None:
    prod.timeout_s, prod.fallback_enabled, prod.default_model = 30, False, ""
    prod.breaker_enabled, prod.breaker_slow_call_s, prod.cache_ttl_s = False, 4, 60
    prod.default_output_tokens, prod.on_counter_outage = 99, "refuse"
    prod.save()
    Model.objects.filter(pk=gpt.model_id).update(cache=False, lane="litellm")
    Deployment.objects.filter(pk=gpt.pk).update(weight=9, rpm=5, params={"seed": 1}, name="x")
    Deployment.objects.filter(pk=gpt.pk).update(lane="litellm")
    Model.objects.filter(pk=gpt.model_id).update(context_window=1)
    Credential.objects.filter(pk=gpt.credential_id).update(name="y", params={"organization": "o"})
    published, left = back(first, people)
    assert left == []
    assert published.digest == first.digest
    assert published.rolled_back_to == 1


def test_it_restores_a_lane(prod: Any, gpt: Any, people: Any) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(lane="litellm")
    Model.objects.filter(pk=gpt.model_id).update(lane="litellm")
    kept = revision_publish(environment=prod, actor=people.admin)
    Deployment.objects.filter(pk=gpt.pk).update(lane="auto")
    Model.objects.filter(pk=gpt.model_id).update(lane="auto")
    published, left = back(kept, people)
    assert left == []
    assert published.digest == kept.digest


def test_it_enables_what_was_disabled(
    prod: Any, gpt: Any, claude: Any, first: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(enabled=False)
    Credential.objects.filter(pk=claude.credential_id).update(enabled=False)
    assert back(first, people)[0].digest == first.digest


def test_it_makes_a_deleted_deployment_again(prod: Any, gpt: Any, first: Any, people: Any) -> None:
    gpt_id = gpt.pk
    Deployment.objects.filter(pk=gpt_id).delete()
    _, left = back(first, people)
    assert [text.split(": ")[1] for text in left] == ["entered again with the same values"]
    assert Deployment.objects.get(pk=gpt_id).name == "openai-gpt-4o"


def test_it_disables_what_is_newer(prod: Any, first: Any, people: Any) -> None:
    newer = builders.deployment(environment=prod, name="newer")
    assert back(first, people)[0].digest == first.digest
    newer.refresh_from_db()
    assert not newer.enabled


def test_it_restores_aliases_and_chains(
    prod: Any, gpt: Any, claude: Any, first: Any, people: Any
) -> None:
    ModelAlias.objects.all().delete()
    FallbackChain.objects.all().delete()
    builders.alias("other", claude.model, environment=prod)
    builders.chain(claude.model, [gpt.model], environment=prod)
    assert back(first, people)[0].digest == first.digest


def test_it_restores_a_price_as_a_new_version(prod: Any, gpt: Any, first: Any, people: Any) -> None:
    Price.objects.create(deployment=gpt, source="own", units={"input_token": "0.1"})
    published, left = back(first, people)
    assert left == ["openai-gpt-4o: entered again with the same values"]
    restored = next(d for d in published.document["deployments"] if d["id"] == str(gpt.pk))
    assert restored["price"]["units"]["input_token"] == "0.0000025"


def test_it_points_back_to_the_secret_that_was_published(
    prod: Any, gpt: Any, first: Any, people: Any
) -> None:
    from gateway_admin.catalog.services import credential_replace_secret, secret_open

    credential_replace_secret(
        actor=people.admin, credential=gpt.credential, secret={"api_key": "sk-another-secret"}
    )
    assert back(first, people)[0].digest == first.digest
    gpt.credential.refresh_from_db()
    assert secret_open(gpt.credential.secret) == {"api_key": builders.CANARY_SECRET}


def test_it_refuses_when_a_secret_is_gone_and_names_the_credential(
    prod: Any, gpt: Any, first: Any, people: Any
) -> None:
    name = gpt.credential.name
    FallbackChain.objects.all().delete()
    Deployment.objects.filter(pk=gpt.pk).delete()
    Credential.objects.filter(pk=gpt.credential_id).delete()
    revision_publish(environment=prod, actor=people.admin)
    with pytest.raises(Conflict, match=f"credential {name} was deleted"):
        revision_rollback(revision=first, actor=people.admin)
    assert not Deployment.objects.filter(pk=gpt.pk).exists()


def test_it_refuses_when_a_provider_is_gone(
    prod: Any, gpt: Any, claude: Any, first: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=claude.pk).delete()
    Credential.objects.filter(pk=claude.credential_id).delete()
    Provider.objects.filter(slug="anthropic").delete()
    revision_publish(environment=prod, actor=people.admin)
    with pytest.raises(Conflict, match="provider anthropic was deleted"):
        revision_rollback(revision=first, actor=people.admin)


def test_it_restores_names_that_were_swapped(
    prod: Any, gpt: Any, claude: Any, first: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(name="spare")
    Deployment.objects.filter(pk=claude.pk).update(name="openai-gpt-4o")
    Deployment.objects.filter(pk=gpt.pk).update(name="claude")
    assert back(first, people)[0].digest == first.digest


def test_it_refuses_when_a_name_went_to_something_else(
    prod: Any, gpt: Any, first: Any, people: Any
) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(name="renamed")
    builders.deployment(environment=prod, name="openai-gpt-4o")
    revision_publish(environment=prod, actor=people.admin)
    with pytest.raises(Conflict, match="name of another deployment"):
        revision_rollback(revision=first, actor=people.admin)


def test_the_region_stays_editable_after_a_roll_back(prod: Any, people: Any) -> None:
    bedrock = builders.deployment(
        environment=prod, provider=builders.provider("bedrock"), region="eu-west-1"
    )
    first = revision_publish(environment=prod, actor=people.admin)
    assert first.document["deployments"][0]["params"] == {"aws_region_name": "eu-west-1"}
    Deployment.objects.filter(pk=bedrock.pk).update(region="us-east-1")
    back(first, people)
    bedrock.refresh_from_db()
    assert (bedrock.region, bedrock.params) == ("eu-west-1", {})


def test_the_active_revision_is_no_goal(first: Any, people: Any) -> None:
    with pytest.raises(Conflict, match="is active"):
        revision_rollback(revision=first, actor=people.admin)


def test_it_leaves_other_environments_alone(prod: Any, gpt: Any, first: Any, people: Any) -> None:
    dev = builders.environment("dev")
    builders.deployment(environment=dev, name="dev-gpt", model=gpt.model)
    before = render(dev)
    Deployment.objects.filter(pk=gpt.pk).update(weight=9)
    back(first, people)
    assert render(dev) == before


def test_a_revision_of_an_earlier_version_gets_the_defaults(
    prod: Any, gpt: Any, people: Any
) -> None:
    document = render(prod)
    for field in LATER_FIELDS:
        del document["environment"][field]  # type: ignore[misc]
    for row in document["models"]:
        del row["cache"]  # type: ignore[misc]
    old = Revision.objects.create(
        environment=prod,
        number=1,
        digest=document_digest(document),
        document=document,
        change_count=0,
    )
    prod.total_timeout_s, prod.on_counter_outage, prod.breaker_window_s = 30, "refuse", 10
    prod.cache_enabled, prod.default_output_tokens = False, 512
    prod.save()
    Model.objects.update(cache=False)
    revision_publish(environment=prod, actor=people.admin)
    published = revision_rollback(revision=old, actor=people.admin)
    environment = published.document["environment"]
    assert environment["total_timeout_s"] == 600
    assert environment["on_counter_outage"] == "share"
    assert environment["breaker"]["window_s"] == 60
    assert environment["cache"] == {"enabled": True, "ttl_s": 3600, "max_entry_bytes": 1048576}
    assert environment["default_output_tokens"] is None
    assert [row["cache"] for row in published.document["models"]] == [True]


def test_pages_cope_with_a_revision_of_an_earlier_version(
    prod: Any, gpt: Any, people: Any, client_of: Any
) -> None:
    document = render(prod)
    for field in LATER_FIELDS:
        del document["environment"][field]  # type: ignore[misc]
    for row in document["models"]:
        del row["cache"]  # type: ignore[misc]
    Revision.objects.create(
        environment=prod, number=1, digest="ab", document=document, change_count=0
    )
    admin = client_of(people.admin)
    draft = admin.get("/publish/").content.decode()
    assert "circuit breakers" in draft
    assert "response cache" in draft
    assert admin.get("/publish/prod/1/").status_code == 200
    revision_publish(environment=prod, actor=people.admin)
    assert admin.get("/publish/prod/1/rollback/").status_code == 200


def test_it_is_audited(prod: Any, gpt: Any, first: Any, people: Any) -> None:
    Deployment.objects.filter(pk=gpt.pk).update(weight=9)
    back(first, people)
    event = AuditEvent.objects.get(action="revision.rollback")
    assert event.changes["revision"] == [2, 1]
