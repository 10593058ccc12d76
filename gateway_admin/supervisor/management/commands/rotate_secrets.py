"""Bring everything that is stored encrypted under the newest encryption key.

    GATEWAY_ENCRYPTION_KEYS="k2:<new>,k1:<old>"   then   manage.py rotate_secrets

Safe under live traffic: plaintexts, versions and fingerprints stay, so nothing has to be
published. Afterwards the old key may be taken out of the ring.
"""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from gateway_admin.accounts.second_factors import seeds_reencrypt
from gateway_admin.catalog.credentials import secrets_reencrypt
from gateway_admin.fleet.identity import identities_reencrypt


class Command(BaseCommand):
    help = "Re-encrypt stored secrets under the newest key of GATEWAY_ENCRYPTION_KEYS."

    def handle(self, *args: Any, **options: Any) -> None:
        for what, reencrypt in (
            ("provider secrets", secrets_reencrypt),
            ("fleet identities", identities_reencrypt),
            ("second factors", seeds_reencrypt),
        ):
            self.stdout.write(f"{reencrypt()} {what} moved")
        self.stdout.write(f"All of them open with key {settings.ENCRYPTION_KEYS.current_id!r} now.")
