"""HTTP client of the control plane's fleet endpoints. Every failure is one of the classes below.

ControlPlaneError            unreachable, 5xx, not JSON: try again later
    TokenRefused             401 or 403: the fleet token is wrong or revoked
    BatchRefused             400 or 413 on usage: this batch will never be taken
"""

from typing import Any, cast

import httpx

from proxy.contract import PolicyFeed, RevisionEnvelope, SyncOrder, SyncReport, UsageReceipt
from proxy.settings import FleetIdentity

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 15.0
COUNTERS_TIMEOUT_S = 60.0  # sums over months of a large ledger


class ControlPlaneError(Exception):
    """The control plane did not answer as it should; the message is fit for a log."""


class TokenRefused(ControlPlaneError):
    """The control plane does not accept this replica's fleet token."""


class BatchRefused(ControlPlaneError):
    """A usage batch was refused as a whole. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ControlPlane:
    """One keep-alive client per worker; bound to the loop it is first used in."""

    def __init__(self, fleet: FleetIdentity) -> None:
        self._client = httpx.AsyncClient(
            base_url=fleet.control_plane_url,
            headers={"authorization": f"Bearer {fleet.fleet_token}"},
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def sync(self, report: SyncReport) -> SyncOrder:
        """Tell where this worker stands; learn what it should be running."""
        return cast(SyncOrder, await self._json("POST", "/fleet/v1/sync", json=report))

    async def revision(self, number: int) -> RevisionEnvelope:
        """Fetch one published revision."""
        answer = await self._json("GET", f"/fleet/v1/revisions/{number}")
        answer.setdefault("revision", number)
        return cast(RevisionEnvelope, answer)

    async def policies(self, since: int) -> PolicyFeed:
        """Fetch the virtual keys that changed after a version."""
        path = f"/fleet/v1/policies?since={since}"
        return cast(PolicyFeed, await self._json("GET", path))

    async def usage(self, content: bytes) -> UsageReceipt:
        """Ship one batch of events (see packing.py)."""
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        answer = await self._json("POST", "/fleet/v1/usage", content=content, headers=headers)
        return cast(UsageReceipt, answer)

    async def counters(self) -> str:
        """Have the shared counters built from the ledger if they are absent; their epoch."""
        answer = await self._json("POST", "/fleet/v1/counters", timeout=COUNTERS_TIMEOUT_S)
        return str(answer["epoch"])

    async def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ControlPlaneError(f"control plane unreachable: {reason}") from error
        if response.status_code in (401, 403):
            raise TokenRefused(
                f"control plane refused this replica ({_excerpt(response)}): check its fleet "
                "token and restart the proxy with a new one if it was revoked"
            )
        if response.status_code in (400, 413):
            raise BatchRefused(_excerpt(response), response.status_code)
        if response.status_code != 200:
            raise ControlPlaneError(f"control plane answered {response.status_code} to {path}")
        try:
            answer = response.json()
        except ValueError as error:
            raise ControlPlaneError(f"control plane answered {path} without JSON") from error
        if not isinstance(answer, dict):
            raise ControlPlaneError(f"control plane answered {path} without an object")
        return answer


def _excerpt(response: httpx.Response) -> str:
    return f"{response.status_code}: {response.text[:300]}"
