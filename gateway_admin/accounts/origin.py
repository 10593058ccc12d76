"""From which address the present request comes, for the audit trail."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import ip_address

from django.conf import settings
from django.http import HttpRequest

_address: ContextVar[str | None] = ContextVar("request_address", default=None)


def address() -> str | None:
    """The client's address; None outside a request."""
    return _address.get()


@contextmanager
def of_request(request: HttpRequest) -> Iterator[None]:
    token = _address.set(client_address(request))
    try:
        yield
    finally:
        _address.reset(token)


def client_address(request: HttpRequest) -> str | None:
    """The peer's address, or what the outermost of GATEWAY_TRUSTED_PROXIES proxies saw.

    Each trusted proxy appends one entry to X-Forwarded-For; whatever stands further left
    was written by the client itself.
    """
    candidate = request.META.get("REMOTE_ADDR", "")
    forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",")]
    if 0 < settings.TRUSTED_PROXIES <= len(forwarded):
        candidate = forwarded[-settings.TRUSTED_PROXIES]
    try:
        return str(ip_address(candidate))
    except ValueError:
        return None
