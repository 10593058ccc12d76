"""Virtual keys: changes take effect at once, without a publish."""

import time

from tests.proxy.conftest import Gateway


def status_of(gateway: Gateway, public_id: str) -> int:
    with gateway.client(public_id) as client:
        return client.get("/v1/models").status_code


def test_new_key_works(gateway: Gateway) -> None:
    assert status_of(gateway, "brand-new".replace("-", "")) == 401
    gateway.set_key("brandnew")
    assert status_of(gateway, "brandnew") == 200


def test_revoked_key_dies_without_a_publish(gateway: Gateway) -> None:
    gateway.set_key("shortlived")
    assert status_of(gateway, "shortlived") == 200
    deadline = time.monotonic() + 30
    gateway.peer.revoke("shortlived")
    while status_of(gateway, "shortlived") == 200:
        assert time.monotonic() < deadline, "the revocation never arrived"
        time.sleep(0.01)
    assert status_of(gateway, "shortlived") == 401


def test_blocked_and_unblocked(gateway: Gateway) -> None:
    gateway.set_key("moody", state="blocked")
    assert status_of(gateway, "moody") == 401
    gateway.set_key("moody")
    assert status_of(gateway, "moody") == 200


def test_other_keys_are_untouched_by_a_delta(gateway: Gateway) -> None:
    gateway.set_key("first1")
    gateway.set_key("second2")
    assert status_of(gateway, "first1") == 200
    assert status_of(gateway, "alpha") == 200


def test_control_plane_that_went_back_in_time_is_followed(gateway: Gateway) -> None:
    gateway.set_key("future")
    peer = gateway.peer
    with peer.lock:
        del peer.keys["future"]
        peer.changes = [(v, p) for v, p in peer.changes if p != "future"]
        peer.policy_version = max((v for v, _ in peer.changes), default=1)
        wanted = peer.policy_version
    peer.wait_for("older version", lambda: peer.reports[-1]["policy_version"] == wanted)
    assert status_of(gateway, "future") == 401
    assert status_of(gateway, "alpha") == 200
