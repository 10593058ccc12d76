"""GET /fleet/v1/revisions/<number>: a document with its secrets, for this fleet alone."""

import base64
import json
from typing import Any

import pytest

from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.services import fleet_identity, open_key, revision_publish
from gateway_admin.lib import crypto
from proxy.contract import document_digest, secret_context
from tests import builders

pytestmark = pytest.mark.django_db


def unsealed(environment: Any, secret_id: Any, sealed: Any) -> Any:
    key = open_key(fleet_identity(environment))
    context = secret_context(environment.slug, secret_id)
    return json.loads(crypto.unseal(key, base64.b64decode(sealed), context))


def test_it_delivers_what_was_published(prod: Any, gpt: Any, replica_of: Any, people: Any) -> None:
    revision = revision_publish(environment=prod, actor=people.admin)
    envelope = replica_of(prod).get("revisions/1").json()
    assert (envelope["revision"], envelope["digest"]) == (1, revision.digest)
    assert document_digest(envelope["document"]) == revision.digest


def test_secrets_travel_sealed(prod: Any, gpt: Any, replica_of: Any, people: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    answer = replica_of(prod).get("revisions/1")
    assert builders.CANARY_SECRET not in answer.content.decode()
    ((secret_id, sealed),) = answer.json()["secrets"].items()
    assert secret_id == str(gpt.credential.secret_id)
    assert unsealed(prod, secret_id, sealed) == {"api_key": builders.CANARY_SECRET}
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_secret_opens_in_its_own_environment_only(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    revision_publish(environment=prod, actor=people.admin)
    ((secret_id, sealed),) = replica_of(prod).get("revisions/1").json()["secrets"].items()
    with pytest.raises(crypto.DecryptionError):
        unsealed(builders.environment("dev"), secret_id, sealed)


def test_a_credential_without_secret_has_none(prod: Any, replica_of: Any, people: Any) -> None:
    ollama = builders.provider("ollama")
    credential = builders.credential(environment=prod, provider=ollama, without_secret=True)
    builders.deployment(environment=prod, credential=credential)
    revision_publish(environment=prod, actor=people.admin)
    envelope = replica_of(prod).get("revisions/1").json()
    assert envelope["secrets"] == {}
    assert envelope["document"]["credentials"][0]["secret_id"] is None


def test_an_old_revision_keeps_the_secret_it_was_published_with(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    from gateway_admin.catalog.services import credential_replace_secret

    revision_publish(environment=prod, actor=people.admin)
    secret = {"api_key": "sk-another-secret"}
    credential_replace_secret(actor=people.admin, credential=gpt.credential, secret=secret)
    ((secret_id, sealed),) = replica_of(prod).get("revisions/1").json()["secrets"].items()
    assert unsealed(prod, secret_id, sealed) == {"api_key": builders.CANARY_SECRET}
    revision_publish(environment=prod, actor=people.admin)
    ((secret_id, sealed),) = replica_of(prod).get("revisions/2").json()["secrets"].items()
    assert unsealed(prod, secret_id, sealed) == secret


def test_another_environments_token_sees_nothing(
    prod: Any, gpt: Any, replica_of: Any, people: Any
) -> None:
    revision_publish(environment=prod, actor=people.admin)
    stranger = replica_of(builders.environment("dev"))
    assert stranger.get("revisions/1").status_code == 404
    assert stranger.sync().json()["revision"] is None


def test_an_unknown_number_is_not_found(prod: Any, replica_of: Any) -> None:
    assert replica_of(prod).get("revisions/7").status_code == 404


def test_people_need_the_fleet_token_too(prod: Any, gpt: Any, people: Any, client_of: Any) -> None:
    revision_publish(environment=prod, actor=people.admin)
    assert client_of(people.admin).get("/fleet/v1/revisions/1").status_code == 401


def test_the_number_of_queries_does_not_grow(
    prod: Any, gpt: Any, replica_of: Any, people: Any, django_assert_num_queries: Any
) -> None:
    for _ in range(5):
        builders.deployment(environment=prod)
    revision_publish(environment=prod, actor=people.admin)
    replica = replica_of(prod)
    with django_assert_num_queries(3):  # token, revision, secrets
        envelope = replica.get("revisions/1").json()
    assert len(envelope["secrets"]) == 6
    assert Revision.objects.count() == 1
