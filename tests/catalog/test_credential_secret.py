"""A secret goes in and never comes out; edits leave it byte-identical."""

import json

import pytest
from django.db import connection

from gateway_admin.accounts.models import AuditEvent
from gateway_admin.catalog import services
from gateway_admin.catalog.credentials import fingerprint
from gateway_admin.catalog.models import CredentialSecret
from gateway_admin.lib.errors import InvalidInput
from tests.catalog import build

pytestmark = pytest.mark.django_db


def test_it_opens_again():
    credential = build.credential()
    assert services.secret_open(credential.secret) == {"api_key": build.SECRET}


def test_it_keeps_the_ciphertext_when_something_else_is_edited():
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


def test_it_adds_a_version_when_replaced():
    credential = build.credential()
    first = credential.secret
    credential = services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": "sk-another-secret-of-length"}
    )
    assert credential.secret.version == 2
    assert credential.secret.fingerprint != first.fingerprint
    assert services.secret_open(first) == {"api_key": build.SECRET}


def test_it_forgets_what_the_provider_said_of_the_replaced_secret():
    credential = build.credential()
    credential.last_error_class, credential.last_error = "authentication", "no"
    credential.save()
    credential = services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": "sk-another-secret-of-length"}
    )
    assert (credential.last_error, credential.last_error_class) == ("", "")


def test_it_hints_at_the_end_of_long_secrets_only():
    assert build.credential("long").secret.hints == {"api_key": build.SECRET[-4:]}
    assert build.credential("short", secret={"api_key": "abc"}).secret.hints == {"api_key": ""}


def test_it_has_the_same_fingerprint_for_the_same_secret_only():
    one, same = build.credential("one"), build.credential("same")
    other = build.credential("other", secret={"api_key": "sk-something-else"})
    assert one.secret.fingerprint == same.secret.fingerprint != other.secret.fingerprint
    assert len(fingerprint({"api_key": "x"})) == 16


def test_it_is_in_no_audit_entry_and_in_no_column():
    credential = build.credential()
    services.credential_replace_secret(
        actor=None, credential=credential, secret={"api_key": build.SECRET + "2"}
    )
    assert build.SECRET not in json.dumps(list(AuditEvent.objects.values_list("changes")))
    with connection.cursor() as cursor:
        for table in ("catalog_credential", "catalog_credentialsecret"):
            cursor.execute(f"SELECT string_agg(t::text, '') FROM {table} t")  # noqa: S608
            assert build.SECRET not in cursor.fetchone()[0]


def test_it_is_demanded_by_kinds_that_need_one():
    with pytest.raises(InvalidInput, match="OpenAI needs this") as caught:
        build.credential(secret={"api_key": "  "})
    assert caught.value.field == "api_key"


def test_it_may_be_left_out_where_none_is_needed():
    ollama = build.provider("ollama", "Ollama")
    credential = build.credential(
        "ollama", of=ollama, secret={}, params={"api_base": "http://10.0.0.4:11434/"}
    )
    assert credential.secret is None
    assert credential.params == {"api_base": "http://10.0.0.4:11434"}


def test_half_of_an_aws_key_is_refused():
    bedrock = build.provider("bedrock", "Bedrock")
    with pytest.raises(InvalidInput) as caught:
        build.credential(
            "aws",
            of=bedrock,
            params={"aws_region_name": "us-east-1"},
            secret={"aws_access_key_id": "AKIAEXAMPLE"},
        )
    assert caught.value.field == "aws_secret_access_key"


def test_further_secrets_of_other_providers_are_merged():
    vertex = build.provider("other", "Vertex", litellm_provider="vertex_ai")
    credential = build.credential(
        "vertex", of=vertex, secret={"further": '{"vertex_credentials": {"type": "x"}}'}
    )
    assert services.secret_open(credential.secret) == {"vertex_credentials": '{"type": "x"}'}


@pytest.mark.parametrize("value", ["os.environ/DATABASE_URL", "oidc/env/HOME"])
def test_references_to_the_proxys_own_surroundings_are_refused(value):
    with pytest.raises(InvalidInput, match="not resolved"):
        build.credential(secret={"api_key": value})
    with pytest.raises(InvalidInput, match="not resolved"):
        build.credential(params={"organization": value})
