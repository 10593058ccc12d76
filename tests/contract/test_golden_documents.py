"""Both planes agree, byte by byte, on what given rows mean."""

import json
import os
from typing import Any

import pytest

from gateway_admin.fleet.documents import RENDER_QUERIES, draft
from proxy.contract import canonical_json, check_document, document_digest, secret_context
from proxy.snapshot import build_snapshot, seal
from tests.contract import golden

FLEET_KEY = bytes(range(32))


@pytest.mark.django_db
@pytest.mark.parametrize("name", golden.CASES)
def test_rows_render_to_the_document(name: Any) -> None:
    case = golden.read(name)
    made = draft(golden.enter(case["rows"]))
    digest = document_digest(made.document)
    if golden.WRITE:
        warnings = [warning.text for warning in made.warnings]
        golden.write(
            name, {**case, "warnings": warnings, "digest": digest, "document": made.document}
        )
        case = golden.read(name)
    assert json.loads(canonical_json(made.document)) == case["document"]
    assert digest == case["digest"]
    assert [warning.text for warning in made.warnings] == case["warnings"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", golden.CASES)
def test_the_order_of_entry_does_not_matter(name: Any) -> None:
    case = golden.read(name)
    rows = case["rows"]
    for part in ("models", "credentials", "deployments", "prices", "chains"):
        rows[part].reverse()
    rows["aliases"] = dict(reversed(rows["aliases"].items()))
    assert document_digest(draft(golden.enter(rows)).document) == case["digest"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", golden.CASES)
def test_the_number_of_queries_does_not_grow(name: Any, django_assert_max_num_queries: Any) -> None:
    environment = golden.enter(golden.read(name)["rows"])
    with django_assert_max_num_queries(RENDER_QUERIES):
        draft(environment)


@pytest.mark.parametrize("name", golden.CASES)
def test_a_replica_can_build_the_document(name: Any) -> None:
    case = golden.read(name)
    document = check_document(case["document"])
    slug = document["environment"]["slug"]
    secrets = {
        row["secret_id"]: seal(
            b'{"api_key": "secret"}',
            FLEET_KEY,
            secret_context(slug, row["secret_id"]),
            os.urandom(12),
        )
        for row in document["credentials"]
        if row["secret_id"]
    }
    snapshot = build_snapshot(
        {"revision": 1, "digest": case["digest"], "document": document, "secrets": secrets},
        environment=slug,
        fleet_key=FLEET_KEY,
    )
    assert set(snapshot.models) == {model["name"] for model in document["models"]}
    assert len(snapshot.deployments) == len(document["deployments"])
