"""A peer that speaks the fleet protocol from documents a test gives it.

It stands where the control plane stands; what is under test is the replica.
"""

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from proxy.contract import (
    BreakerOrder,
    CalendarDocument,
    KeyPolicy,
    PolicyFeed,
    RevisionDocument,
    RevisionEnvelope,
    SubjectPolicy,
    SyncReport,
    UsageEventDocument,
    check_event,
)
from tests.proxy.documents import FLEET_TOKEN, PEPPER, envelope, sealed


class ControlPlanePeer:
    """State of the peer: what is published, what was reported, what was delivered."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token = FLEET_TOKEN
        self.revisions: dict[int, RevisionEnvelope] = {}
        self.keys: dict[str, KeyPolicy] = {}
        self.changes: list[tuple[int, str]] = []  # policy version, public id
        self.subjects: dict[tuple[str, str], SubjectPolicy] = {}
        self.subject_changes: list[tuple[int, tuple[str, str]]] = []
        self.calendar: CalendarDocument = {
            "time_zone": "UTC",
            "week_start": 1,
            "fiscal_year_month": 1,
        }
        self.breaker_orders: list[BreakerOrder] = []
        self.counters_asked = 0
        self.build_counters: Callable[[], str] = lambda: "epoch-1"
        self.policy_version = 0
        self.reports: list[SyncReport] = []
        self.events: dict[str, UsageEventDocument] = {}
        self.duplicates = 0
        self.refuse_event: Callable[[Any], str | None] = lambda event: None
        self.usage_status = 200
        self.url = ""

    # --- what tests do --------------------------------------------------------------------

    def publish(self, content: RevisionDocument, secrets: dict[str, dict[str, str]]) -> int:
        """Publish a document as the next revision."""
        with self.lock:
            number = max(self.revisions, default=0) + 1
            self.revisions[number] = envelope(number, content, secrets)
            return number

    def publish_raw(self, sent: RevisionEnvelope) -> int:
        """Publish an envelope as it is, however broken."""
        with self.lock:
            number = max(self.revisions, default=0) + 1
            self.revisions[number] = {**sent, "revision": number}
            return number

    def set_key(self, row: KeyPolicy) -> int:
        """Create or change a virtual key."""
        with self.lock:
            self.policy_version += 1
            self.keys[row["public_id"]] = row
            self.changes.append((self.policy_version, row["public_id"]))
            return self.policy_version

    def revoke(self, public_id: str) -> int:
        """Remove a virtual key."""
        with self.lock:
            self.policy_version += 1
            self.keys.pop(public_id, None)
            self.changes.append((self.policy_version, public_id))
            return self.policy_version

    def set_subject(self, row: SubjectPolicy) -> int:
        """Give a subject other rules; without any it is removed."""
        key = (row["scope"], row["subject"])
        with self.lock:
            self.policy_version += 1
            if row["budgets"] or row["limits"] or row["blocked"] is not None:
                self.subjects[key] = row
            else:
                self.subjects.pop(key, None)
            self.subject_changes.append((self.policy_version, key))
            return self.policy_version

    def clear_subjects(self) -> int:
        """Remove all rules."""
        with self.lock:
            self.policy_version += 1
            self.subject_changes += [(self.policy_version, key) for key in self.subjects]
            self.subjects.clear()
            return self.policy_version

    def touch(self) -> int:
        """A new calendar or new orders to breakers: nothing else changed."""
        with self.lock:
            self.policy_version += 1
            return self.policy_version

    def counters(self) -> dict[str, Any]:
        """A worker found the counters unbuilt."""
        self.counters_asked += 1
        return {"epoch": self.build_counters()}

    def wait_for(self, what: str, check: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until a condition holds, or fail naming it."""
        deadline = time.monotonic() + timeout_s
        while not check():
            if time.monotonic() > deadline:
                last = self.reports[-1] if self.reports else None
                raise AssertionError(f"never: {what}; last report {last}")
            time.sleep(0.02)

    def wait_applied(self, number: int, timeout_s: float = 15.0) -> None:
        """Wait until a worker acknowledged the revision."""
        self.wait_for(
            f"revision {number} applied",
            lambda: any(r["applied_revision"] == number for r in self.reports[-20:]),
            timeout_s,
        )

    def wait_policies(self, version: int) -> None:
        """Wait until a worker knows the policy version."""
        self.wait_for(
            f"policies {version}",
            lambda: any(r["policy_version"] >= version for r in self.reports[-20:]),
        )

    def wait_delivered(self) -> None:
        """Wait until nothing waits in the replica's spool."""
        seen = len(self.reports)
        self.wait_for(
            "an empty spool", lambda: any(r["spool_events"] == 0 for r in self.reports[seen + 1 :])
        )

    def wait_event(self, event_id: str, timeout_s: float = 10.0) -> UsageEventDocument:
        """The delivered event of a request."""
        self.wait_for(f"event {event_id}", lambda: event_id in self.events, timeout_s)
        return self.events[event_id]

    # --- what the replica asks ------------------------------------------------------------

    def sync(self, report: SyncReport) -> dict[str, Any]:
        with self.lock:
            self.reports.append(report)
            number = max(self.revisions, default=None)
            return {
                "revision": number,
                "digest": self.revisions[number]["digest"] if number is not None else None,
                "policy_version": self.policy_version,
                "server_time": "2026-11-20T21:40:25+00:00",
            }

    def policies(self, since: int) -> PolicyFeed:
        with self.lock:
            full = since == 0
            changed = set(self.keys) if full else {p for v, p in self.changes if v > since}
            subjects = (
                set(self.subjects) if full else {k for v, k in self.subject_changes if v > since}
            )
            return {
                "version": self.policy_version,
                "full": full,
                "pepper": sealed("pepper", PEPPER),
                "keys": [self.keys[p] for p in sorted(changed) if p in self.keys],
                "removed": [] if full else sorted(p for p in changed if p not in self.keys),
                "subjects": [self.subjects[k] for k in sorted(subjects) if k in self.subjects],
                "removed_subjects": [list(k) for k in sorted(subjects) if k not in self.subjects],
                "calendar": self.calendar,
                "breaker_orders": list(self.breaker_orders),
            }

    def usage(self, batch: dict[str, Any]) -> dict[str, Any]:
        accepted = duplicates = 0
        refused = []
        with self.lock:
            for event in batch["events"]:
                check_event(event)
                reason = self.refuse_event(event)
                if reason is not None:
                    refused.append({"event_id": event["event_id"], "reason": reason})
                elif event["event_id"] in self.events:
                    duplicates += 1
                else:
                    self.events[event["event_id"]] = event
                    accepted += 1
            self.duplicates += duplicates
        return {"accepted": accepted, "duplicates": duplicates, "refused": refused}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    peer: ControlPlanePeer

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        self._answer(json.loads(raw or b"null"))

    def _answer(self, body: Any) -> None:
        if self.headers.get("authorization") != f"Bearer {self.peer.token}":
            return self._send(401, {"error": "token"})
        path = self.path
        if path == "/fleet/v1/sync":
            return self._send(200, self.peer.sync(body))
        if path.startswith("/fleet/v1/revisions/"):
            found = self.peer.revisions.get(int(path.rpartition("/")[2]))
            return self._send(200 if found else 404, found or {})
        if path.startswith("/fleet/v1/policies?since="):
            return self._send(200, self.peer.policies(int(path.rpartition("=")[2])))
        if path == "/fleet/v1/counters":
            return self._send(200, self.peer.counters())
        if path == "/fleet/v1/usage":
            if self.peer.usage_status != 200:
                return self._send(self.peer.usage_status, {"error": "as the test wishes"})
            return self._send(200, self.peer.usage(body))
        return self._send(404, {"error": path})

    def _send(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def running(peer: ControlPlanePeer, port: int = 0) -> Iterator[ControlPlanePeer]:
    """Serve the peer on a loopback port until the block ends (again on the same, if named)."""
    handler = type("Handler", (_Handler,), {"peer": peer})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
