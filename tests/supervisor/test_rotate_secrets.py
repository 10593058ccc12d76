"""`manage.py rotate_secrets`: a new encryption key, without anybody noticing."""

import os
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management import call_command

from gateway_admin.accounts.adapter import MFAAdapter
from gateway_admin.catalog.models import CredentialSecret
from gateway_admin.catalog.services import secret_open
from gateway_admin.fleet.documents import render
from gateway_admin.fleet.identity import open_key, open_token
from gateway_admin.fleet.services import fleet_identity
from gateway_admin.lib.crypto import KeyRing
from proxy.contract import document_digest
from tests import builders
from tests.people import People


def test_it_moves_everything_to_the_newest_key(people: People, settings: Any) -> None:
    credential = builders.credential(secret={"api_key": "sk-rotated-canary-77"})
    identity = fleet_identity(credential.environment)
    token, fleet_key = open_token(identity), open_key(identity)
    Authenticator.objects.create(
        user=people.admin, type="totp", data={"secret": MFAAdapter().encrypt("SEED")}
    )
    digest = document_digest(render(credential.environment))
    old = settings.ENCRYPTION_KEYS
    new = KeyRing({"k-new": os.urandom(32)})

    settings.ENCRYPTION_KEYS = KeyRing({**new.keys, **old.keys})
    call_command("rotate_secrets", verbosity=0)

    settings.ENCRYPTION_KEYS = new  # the old key is taken out of the ring
    secret = CredentialSecret.objects.get(credential=credential)
    assert secret_open(secret) == {"api_key": "sk-rotated-canary-77"}
    identity.refresh_from_db()
    assert (open_token(identity), open_key(identity)) == (token, fleet_key)
    factor = Authenticator.objects.get()
    assert MFAAdapter().decrypt(factor.data["secret"]) == "SEED"
    assert document_digest(render(credential.environment)) == digest
