"""A secret goes in and never comes out; edits leave it byte-identical."""

import json

import pytest
from django.db import connection

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog import services
from gateway_admin.catalog.credentials import fingerprint
from gateway_admin.catalog.models import Credential, CredentialSecret
from gateway_admin.lib.errors import InvalidInput
from tests.catalog import build

pytestmark = pytest.mark.django_db


def stored(credential: Credential) -> CredentialSecret:
    assert credential.secret is not None
    return credential.secret


def test_it_opens_again() -> None:
    credential = build.credential()
    assert services.secret_open(stored(credential)) == {"api_key": build.SECRET}


def test_it_keeps_the_ciphertext_when_something_else_is_edited() -> None:
    credential = build.credential()
    before = CredentialSecret.objects.get(credential=credential)
    services.credential_update(
        actor=None,
        credential=credential,
        name="renamed",
        params={"api_base": "https://gateway.example.com/v1"},
        enabled=False,
    )
    after = CredentialSecret.objects.get(credential=credential)
    assert bytes(after.ciphertext) == bytes(before.ciphertext)
    assert (after.pk, after.key_id, after.version) == (before.pk, before.key_id, before.version)


def test_it_adds_a_version_when_replaced() -> None:
    credential = build.credential()
    first = stored(credential)
    credential = services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": "sk-another-secret-of-length"}
    )
    assert stored(credential).version == 2
    assert stored(credential).fingerprint != first.fingerprint
    assert services.secret_open(first) == {"api_key": build.SECRET}


def test_it_forgets_what_the_provider_said_of_the_replaced_secret() -> None:
    credential = build.credential()
    credential.last_error_class, credential.last_error = "authentication", "no"
    credential.save()
    credential = services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": "sk-another-secret-of-length"}
    )
    assert (credential.last_error, credential.last_error_class) == ("", "")


def test_it_hints_at_the_end_of_long_secrets_only() -> None:
    assert stored(build.credential("long")).hints == {"api_key": build.SECRET[-4:]}
    assert stored(build.credential("short", secret={"api_key": "abc"})).hints == {"api_key": ""}


def test_it_has_the_same_fingerprint_for_the_same_secret_only() -> None:
    one, same = build.credential("one"), build.credential("same")
    other = build.credential("other", secret={"api_key": "sk-something-else"})
    assert stored(one).fingerprint == stored(same).fingerprint != stored(other).fingerprint
    assert len(fingerprint({"api_key": "x"})) == 16


def test_it_is_in_no_audit_entry_and_in_no_column() -> None:
    credential = build.credential()
    services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": build.SECRET + "2"}
    )
    assert build.SECRET not in json.dumps(list(AuditEvent.objects.values_list("changes")))
    with connection.cursor() as cursor:
        for table in ("catalog_credential", "catalog_credentialsecret"):
            cursor.execute(f"SELECT string_agg(t::text, '') FROM {table} t")  # noqa: S608
            assert build.SECRET not in cursor.fetchone()[0]


def test_it_is_demanded_by_kinds_that_need_one() -> None:
    with pytest.raises(InvalidInput, match="OpenAI needs this") as caught:
        build.credential(secret={"api_key": "  "})
    assert caught.value.field == "api_key"


def test_it_may_be_left_out_where_none_is_needed() -> None:
    ollama = build.provider("ollama", "Ollama")
    credential = build.credential(
        "ollama", of=ollama, secret={}, params={"api_base": "http://10.0.0.4:11434/"}
    )
    assert credential.secret is None
    assert credential.params == {"api_base": "http://10.0.0.4:11434"}


def test_half_of_an_aws_key_is_refused() -> None:
    bedrock = build.provider("bedrock", "Bedrock")
    with pytest.raises(InvalidInput) as caught:
        build.credential(
            "aws",
            of=bedrock,
            params={"aws_region_name": "us-east-1"},
            secret={"aws_access_key_id": "AKIAEXAMPLE"},
        )
    assert caught.value.field == "aws_secret_access_key"


def test_further_secrets_of_other_providers_are_merged() -> None:
    vertex = build.provider("other", "Vertex", litellm_provider="vertex_ai")
    credential = build.credential(
        "vertex", of=vertex, secret={"further": '{"vertex_credentials": {"type": "x"}}'}
    )
    assert services.secret_open(stored(credential)) == {"vertex_credentials": '{"type": "x"}'}


@pytest.mark.parametrize("value", ["os.environ/DATABASE_URL", "oidc/env/HOME"])
def test_references_to_the_proxys_own_surroundings_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="not resolved"):
        build.credential(secret={"api_key": value})
    with pytest.raises(InvalidInput, match="not resolved"):
        build.credential(params={"organization": value})
