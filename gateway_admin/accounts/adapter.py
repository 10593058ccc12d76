"""django-allauth, adapted: nobody signs up, every sign-in is audited, TOTP secrets encrypted."""

import base64
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.conf import settings
from django.http import HttpRequest

from gateway_admin.accounts import origin
from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.services import audit

MFA_CONTEXT = b"mfa_authenticator:data"


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_client_ip(self, request: HttpRequest) -> str:
        """The address that rate limits count by."""
        return origin.client_address(request) or "unknown"

    def login(self, request: HttpRequest, user: User) -> None:
        super().login(request, user)
        audit(actor=user, action="session.sign_in", target=user)

    def logout(self, request: HttpRequest) -> None:
        user = request.user
        if isinstance(user, User):
            audit(actor=user, action="session.sign_out", target=user)
        super().logout(request)

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        """Note attempts on people that exist; other input may be a password typed too high."""
        email = str(credentials.get("email") or "")
        if user := User.objects.filter(email__iexact=email).first():
            audit(actor=None, action="session.refuse", target=user)

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        if isinstance(request.user, User):
            audit(actor=request.user, action="user.set_password", target=request.user)
        url: str = super().get_password_change_redirect_url(request)
        return url


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Keeps the seeds of one-time passwords encrypted with the key ring."""

    def encrypt(self, text: str) -> str:
        key_id, sealed = settings.ENCRYPTION_KEYS.encrypt(text.encode(), MFA_CONTEXT)
        return f"{key_id}:{base64.b64encode(sealed).decode()}"

    def decrypt(self, encrypted_text: str) -> str:
        key_id, _, encoded = encrypted_text.partition(":")
        opened: bytes = settings.ENCRYPTION_KEYS.decrypt(
            key_id, base64.b64decode(encoded), MFA_CONTEXT
        )
        return opened.decode()

    def get_totp_issuer(self) -> str:
        """How authenticator apps name the entry."""
        return f"Gateway Admin ({Organisation.objects.get().name})"
