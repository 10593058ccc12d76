"""Where replicas deliver their usage, and ask for counters.

`POST /fleet/v1/usage` with a `UsageBatch`:

200 with a `UsageReceipt`: what it names may be deleted from the spool, refused events too.
400 malformed, 401 unknown token, 403 a replica that this fleet does not know, 413 too large.

`POST /fleet/v1/counters`, after Redis was away or found empty: 200 with `{"epoch": …}` of the
counters, which know by then all that the ledger knows (built from it if nobody did yet); 503
when Redis cannot be used from here.
"""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_POST

from gateway_admin.fleet.machine import TooLarge, error_response, fleet_view, read_json
from gateway_admin.fleet.models import FleetIdentity, Replica
from gateway_admin.lib.errors import InvalidInput
from gateway_admin.usage.counter_store import CountersAway
from gateway_admin.usage.counters import counters_ensure
from gateway_admin.usage.services import ingest
from proxy.contract import MAX_BATCH_BYTES, MAX_BATCH_EVENTS


@fleet_view
@require_POST
def usage(request: HttpRequest, identity: FleetIdentity) -> HttpResponse:
    """Store a batch; delivering it again changes nothing."""
    batch = _checked(read_json(request, max_bytes=MAX_BATCH_BYTES))
    replica = Replica.objects.filter(
        pk=batch["replica_id"], environment=identity.environment
    ).first()
    if replica is None:
        return error_response(
            403, "unknown_replica", "This fleet has no such replica: it must sync first."
        )
    return JsonResponse(ingest(environment=identity.environment, replica=replica, batch=batch))


@fleet_view
@require_POST
def counters(request: HttpRequest, identity: FleetIdentity) -> HttpResponse:
    """Build the shared counters if they are absent; callers at once share one build."""
    try:
        epoch = counters_ensure(environment=identity.environment)
    except CountersAway as error:
        return error_response(503, "counters_away", f"Redis cannot be used: {error}")
    return JsonResponse({"epoch": epoch})


def _checked(batch: Any) -> Any:
    """The batch if it has the outer shape of one; its events are checked one by one later."""
    if not isinstance(batch, dict) or not isinstance(batch.get("events"), list):
        raise InvalidInput("A usage batch is an object with replica_id, batch_id and events.")
    try:
        UUID(batch.get("replica_id") or "")
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput("replica_id is not a UUID.", field="replica_id") from error
    if len(batch["events"]) > MAX_BATCH_EVENTS:
        raise TooLarge(f"A batch holds at most {MAX_BATCH_EVENTS:,} events.")
    return batch
