"""Endpoints that replicas call: JSON, bearer fleet token, no session and no cookie.

Errors are `{"error": {"code", "message"}}`: 400 malformed, 401 unknown token, 404 no such
revision, 409 the state forbids it, 413 too large.
"""

import json
import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from gateway_admin.fleet.feed import policy_feed
from gateway_admin.fleet.identity import seal_secrets
from gateway_admin.fleet.models import FleetIdentity, Revision
from gateway_admin.fleet.reports import Standing, identity_of, order_for, worker_report
from gateway_admin.lib.errors import Conflict, InvalidInput
from proxy.contract import RevisionEnvelope

MAX_REPORT_BYTES = 256 * 1024

MachineView = Callable[..., HttpResponse]


class TooLarge(Exception):
    """The body is larger than the endpoint takes."""


def fleet_view(view: MachineView) -> MachineView:
    """Give the view the identity behind the bearer token, and turn errors into JSON."""

    @csrf_exempt
    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        identity = identity_of(_bearer(request))
        if identity is None:
            answer = error_response(401, "unknown_token", "The fleet token is unknown or replaced.")
            answer.headers["WWW-Authenticate"] = 'Bearer realm="fleet"'
            return answer
        try:
            return view(request, identity, *args, **kwargs)
        except InvalidInput as error:
            return error_response(400, "malformed", error.message)
        except Conflict as error:
            return error_response(409, "conflict", error.message)
        except TooLarge as error:
            return error_response(413, "too_large", str(error))

    return checked


def error_response(status: int, code: str, message: str) -> JsonResponse:
    return JsonResponse({"error": {"code": code, "message": message}}, status=status)


def read_json(request: HttpRequest, *, max_bytes: int) -> Any:
    """The body as JSON, gzip or plain. The limit holds before and after unpacking."""
    declared = request.headers.get("Content-Length") or "0"
    if not declared.isdecimal() or int(declared) > max_bytes:
        raise TooLarge(f"The body is larger than {max_bytes:,} bytes.")
    body = request.body
    if request.headers.get("Content-Encoding", "identity").lower() == "gzip":
        body = _unpack(body, max_bytes)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body is not JSON.") from error


@fleet_view
@require_POST
def sync(request: HttpRequest, identity: FleetIdentity) -> HttpResponse:
    """A worker tells where it stands and learns what it should be running."""
    standing = Standing.parse(read_json(request, max_bytes=MAX_REPORT_BYTES))
    worker_report(environment=identity.environment, standing=standing)
    return JsonResponse(order_for(identity))


@fleet_view
@require_GET
def revision(request: HttpRequest, identity: FleetIdentity, number: int) -> HttpResponse:
    """A published document with the secrets it names, sealed for this fleet."""
    found = Revision.objects.filter(environment=identity.environment, number=number).first()
    if found is None:
        return error_response(404, "not_found", f"There is no revision {number}.")
    secret_ids = {row["secret_id"] for row in found.document["credentials"]} - {None}
    envelope = RevisionEnvelope(
        revision=found.number,
        digest=found.digest,
        document=found.document,
        secrets=seal_secrets(identity, secret_ids),
    )
    return _uncached(JsonResponse(envelope))


@fleet_view
@require_GET
def policies(request: HttpRequest, identity: FleetIdentity) -> HttpResponse:
    """Virtual keys that changed after version `since`, or all of them."""
    since = request.GET.get("since", "0")
    if not since.isascii() or not since.isdecimal() or len(since) > 18:
        raise InvalidInput("since is a policy version, 0 for everything.", field="since")
    feed = policy_feed(identity=identity, since=int(since))
    return _uncached(HttpResponse(feed.json(), content_type="application/json"))


def _bearer(request: HttpRequest) -> str:
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    return presented.strip() if scheme.lower() == "bearer" else ""


def _unpack(body: bytes, max_bytes: int) -> bytes:
    """Inflate at most `max_bytes`, so that a small body cannot fill the memory."""
    unpacker = zlib.decompressobj(wbits=31)  # gzip's header and trailer
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidInput("The body is not gzip.") from error
    if len(plain) > max_bytes:
        raise TooLarge(f"The unpacked body is larger than {max_bytes:,} bytes.")
    if not unpacker.eof:
        raise InvalidInput("The compressed body is cut off.")
    return plain


def _uncached(response: HttpResponse) -> HttpResponse:
    response.headers["Cache-Control"] = "no-store"
    return response
