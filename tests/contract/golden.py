"""Golden documents: given rows, the exact document and digest that both planes agree on.

Each `<case>.json` holds `rows` (what an administrator entered), the `document` and `digest`
that the control plane makes of them, and the `warnings` it gives. After a deliberate change
of the contract, `GATEWAY_WRITE_GOLDEN=1 pytest tests/contract` writes them anew; the diff is
then what a reviewer reads.
"""

import json
import os
from pathlib import Path
from typing import Any

from gateway_admin.catalog.models import (
    Credential,
    CredentialSecret,
    Deployment,
    Environment,
    Model,
    Price,
)
from tests import builders

HERE = Path(__file__).parent
WRITE = os.environ.get("GATEWAY_WRITE_GOLDEN") == "1"
CASES = sorted(path.stem for path in HERE.glob("*.json"))

Case = dict[str, Any]


def read(name: str) -> Case:
    case: Case = json.loads((HERE / f"{name}.json").read_text())
    return case


def write(name: str, case: Case) -> None:
    text = json.dumps(case, indent=1, ensure_ascii=False)
    (HERE / f"{name}.json").write_text(text + "\n")


def enter(rows: Case) -> Environment:
    """Make the rows of a case, in the order written, with the ids it states."""
    environment = builders.environment(**rows["environment"])
    models = {row["name"]: Model.objects.create(**row) for row in rows["models"]}
    credentials = {row["name"]: _credential(row) for row in rows["credentials"]}
    deployments = {}
    for row in rows["deployments"]:
        credential = credentials[row["credential"]]
        fields = {**row, "model": models[row["model"]], "credential": credential}
        deployments[row["name"]] = Deployment.objects.create(
            **fields, environment=environment, provider=credential.provider
        )
    for row in rows["prices"]:
        Price.objects.create(**{**row, "deployment": deployments[row["deployment"]]})
    for name, target in rows["aliases"].items():
        builders.alias(name, models[target], environment=environment)
    for row in rows["chains"]:
        targets = [models[target] for target in row["targets"]]
        builders.chain(models[row["model"]], targets, environment=environment, kind=row["kind"])
    return environment


def _credential(row: Case) -> Credential:
    fields = {
        **row,
        "provider": builders.provider(row["provider"]),
        "environment": builders.environment(row["environment"]),
    }
    secret_id = fields.pop("secret_id")
    credential = Credential.objects.create(**fields)
    if secret_id is not None:
        credential.secret = CredentialSecret.objects.create(
            pk=secret_id,
            credential=credential,
            version=1,
            key_id="k1",
            ciphertext=b"",
            fingerprint=f"fp-{credential.name}"[:16],
        )
        credential.save(update_fields=["secret"])
    return credential
