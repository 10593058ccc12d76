"""Seeds of second factors: stored by django-allauth, encrypted by our adapter."""

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction

from gateway_admin.accounts.adapter import MFAAdapter

SEALED_FIELDS = {"secret", "seed"}  # of one-time passwords and of recovery codes


@transaction.atomic
def seeds_reencrypt() -> int:
    """Bring every seed under the newest encryption key; return how many were moved."""
    adapter, moved = MFAAdapter(), 0
    current = f"{settings.ENCRYPTION_KEYS.current_id}:"
    for factor in Authenticator.objects.select_for_update(no_key=True):
        outdated = {
            name: text
            for name, text in factor.data.items()
            if name in SEALED_FIELDS and not text.startswith(current)
        }
        if outdated:
            factor.data |= {
                name: adapter.encrypt(adapter.decrypt(text)) for name, text in outdated.items()
            }
            factor.save(update_fields=["data"])
            moved += 1
    return moved
