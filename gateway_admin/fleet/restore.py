"""Roll back: write a published document back to the rows it was rendered from.

1. Refuse when something it needs is gone for good (a provider, a secret version), naming it.
2. Environment defaults, models, credentials, deployments, prices, aliases and chains get the
   document's values; what was deleted since is made again under its old id.
3. What the document does not know is taken out of service: deployments are disabled, aliases
   and chains deleted. Nothing with a history is deleted.

Rendering the rows afterwards gives the document again, but for the version of prices that
had to be entered anew.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from gateway_admin.accounts.models import User
from gateway_admin.catalog import kinds
from gateway_admin.catalog.drafts import draft_changed
from gateway_admin.catalog.models import (
    ChainTarget,
    Credential,
    CredentialSecret,
    Deployment,
    Environment,
    FallbackChain,
    Lane,
    Model,
    ModelAlias,
    Price,
    Provider,
)
from gateway_admin.catalog.queries import current_prices
from gateway_admin.fleet.models import Revision
from gateway_admin.lib.errors import Conflict
from proxy.contract import (
    ChainDocument,
    CredentialDocument,
    DeploymentDocument,
    EnvironmentDocument,
    ModelDocument,
    RevisionDocument,
)

ENVIRONMENT_FIELDS = (
    "name",
    "fallback_enabled",
    "timeout_s",
    "stream_timeout_s",
    "total_timeout_s",
    "num_retries",
    "retry_backoff_s",
    "default_output_tokens",
    "on_counter_outage",
)
NESTED_FIELDS = ("breaker", "cache")  # their entries are columns with that prefix
DEPLOYMENT_FIELDS = ("upstream_model", "rpm", "tpm", "weight", "timeout_s", "stream_timeout_s")


def restore_document(
    *, environment: Environment, revision: Revision, actor: User | None
) -> dict[str, int]:
    """Write the revision's document back; return how many rows of each sort it names.

    The caller holds the environment's lock. Raises Conflict when something is gone for good.
    """
    document: RevisionDocument = revision.document
    providers = _providers(document, revision)
    _restore_environment(environment, document["environment"])
    models = _restore_models(document["models"], environment=environment, actor=actor)
    _restore_credentials(document["credentials"], environment, providers, revision)
    _restore_deployments(document["deployments"], environment, providers, models)
    _restore_prices(document["deployments"], actor=actor)
    _restore_aliases(document["aliases"], environment, models)
    _restore_chains(document["chains"], environment, models)
    parts = ("models", "credentials", "deployments", "aliases", "chains")
    return {part: len(document[part]) for part in parts}  # type: ignore[literal-required]


def _providers(document: RevisionDocument, revision: Revision) -> dict[str, Provider]:
    rows = [*document["credentials"], *document["deployments"]]
    needed = {row["provider"] for row in rows}
    found = {row.slug: row for row in Provider.objects.filter(slug__in=needed)}
    if missing := sorted(needed - found.keys()):
        raise _gone(revision, f"provider {missing[0]} was deleted", "Add it again")
    return found


def _restore_environment(environment: Environment, wanted: EnvironmentDocument) -> None:
    """Documents of earlier versions state less; what they leave out gets its default."""
    stated: dict[str, Any] = dict(wanted)
    given = dict(stated)
    for part in NESTED_FIELDS:
        given |= {f"{part}_{name}": value for name, value in stated.get(part, {}).items()}
    prefixes = tuple(f"{part}_" for part in NESTED_FIELDS)
    fields = [
        field
        for field in Environment._meta.concrete_fields
        if field.name in ENVIRONMENT_FIELDS or field.name.startswith(prefixes)
    ]
    for field in fields:
        setattr(environment, field.name, given.get(field.name, field.get_default()))
    environment.default_model = wanted["default_model"] or ""
    environment.save(update_fields=[*(field.name for field in fields), "default_model"])


def _restore_models(
    wanted: Iterable[ModelDocument], *, environment: Environment, actor: User | None
) -> dict[str, Model]:
    """Models are shared by all environments: those whose facts change have a new draft, too."""
    models: dict[str, Model] = {}
    changed = False
    for row in wanted:
        facts: dict[str, Any] = {
            "mode": row["mode"],
            "context_window": row["context_window"],
            "max_output_tokens": row["max_output_tokens"],
            # Documents of earlier versions do not say the following.
            "cache": row.get("cache", True),
            "lane": row.get("lane", Lane.AUTO),
        }
        model, created = Model.objects.get_or_create(name=row["name"], defaults=facts)
        stale = [field for field, value in facts.items() if getattr(model, field) != value]
        if not created and stale:
            changed = True
            for field in stale:
                setattr(model, field, facts[field])
            model.save(update_fields=stale)
        models[model.name] = model
    if changed:
        for other in Environment.objects.exclude(pk=environment.pk):
            draft_changed(environment=other, actor=actor)
    return models


def _restore_credentials(
    wanted: Iterable[CredentialDocument],
    environment: Environment,
    providers: Mapping[str, Provider],
    revision: Revision,
) -> None:
    rows = list(wanted)
    _make_room_for_names(Credential, environment, {row["id"]: row["name"] for row in rows})
    existing = Credential.objects.in_bulk([UUID(row["id"]) for row in rows])
    secret_ids = [row["secret_id"] for row in rows if row["secret_id"]]
    secrets = {str(row.pk): row for row in CredentialSecret.objects.filter(pk__in=secret_ids)}
    for row in rows:
        credential = existing.get(UUID(row["id"])) or Credential(pk=UUID(row["id"]))
        if row["secret_id"] and row["secret_id"] not in secrets:
            raise _gone(
                revision,
                f"the secret of credential {row['name']} was deleted since",
                "Enter it in a new credential and publish that",
            )
        credential.environment = environment
        credential.provider = providers[row["provider"]]
        credential.name = row["name"]
        credential.params = row["params"]
        credential.enabled = True
        secret = secrets[row["secret_id"]] if row["secret_id"] else None
        if credential.secret != secret:
            # What the provider said of the later secret says nothing about this one.
            credential.last_error, credential.last_error_class = "", ""
            credential.last_error_at = None
        credential.secret = secret
        credential.save()


def _restore_deployments(
    wanted: Iterable[DeploymentDocument],
    environment: Environment,
    providers: Mapping[str, Provider],
    models: Mapping[str, Model],
) -> None:
    rows = list(wanted)
    ids = [UUID(row["id"]) for row in rows]
    _make_room_for_names(Deployment, environment, {row["id"]: row["name"] for row in rows})
    Deployment.objects.filter(environment=environment).exclude(pk__in=ids).update(enabled=False)
    existing = Deployment.objects.in_bulk(ids)
    for row in rows:
        deployment = existing.get(UUID(row["id"])) or Deployment(pk=UUID(row["id"]))
        deployment.environment = environment
        deployment.model = models[row["model"]]
        deployment.provider = providers[row["provider"]]
        deployment.credential_id = UUID(row["credential"] or "")
        deployment.name = row["name"]
        deployment.region = row["region"]
        deployment.lane = row.get("lane", Lane.AUTO)
        for field in DEPLOYMENT_FIELDS:
            setattr(deployment, field, row[field])  # type: ignore[literal-required]
        deployment.params = _own_params(deployment, row["params"])
        deployment.enabled = True
        deployment.save()


def _own_params(deployment: Deployment, params: dict[str, Any]) -> dict[str, Any]:
    """Without what the region adds by itself, so that the region can still be changed."""
    deployment.params = {}
    implied = kinds.deployment_params(deployment)
    return {name: value for name, value in params.items() if implied.get(name) != value}


def _restore_prices(rows: Iterable[DeploymentDocument], *, actor: User | None) -> None:
    """Price rows never change: another price than today's is entered anew."""
    wanted = {UUID(row["id"]): row["price"] for row in rows}
    current = current_prices(wanted)
    for deployment_id, price in wanted.items():
        today = current.get(deployment_id)
        if price is not None and today is not None and str(today.pk) == price["version"]:
            continue
        if price is None and today is None:
            continue
        Price.objects.create(
            deployment_id=deployment_id,
            source=price["source"] if price else Price.Source.OWN,
            units=price["units"] if price else {},
            created_by=actor,
        )


def _restore_aliases(
    wanted: Mapping[str, str], environment: Environment, models: Mapping[str, Model]
) -> None:
    ModelAlias.objects.filter(environment=environment).exclude(name__in=wanted).delete()
    for name, target in wanted.items():
        ModelAlias.objects.update_or_create(
            environment=environment, name=name, defaults={"model": models[target]}
        )


def _restore_chains(
    wanted: Iterable[ChainDocument], environment: Environment, models: Mapping[str, Model]
) -> None:
    # Steps are unique by position and by model, so changed chains are written anew, whole.
    FallbackChain.objects.filter(environment=environment).delete()
    for row in wanted:
        chain = FallbackChain.objects.create(
            environment=environment, model=models[row["model"]], kind=row["kind"]
        )
        ChainTarget.objects.bulk_create(
            ChainTarget(chain=chain, position=position, model=models[name])
            for position, name in enumerate(row["targets"], start=1)
        )


def _make_room_for_names(
    table: type[Credential] | type[Deployment], environment: Environment, names: Mapping[str, str]
) -> None:
    """Names are unique: free those that rows outside the document, or each other, hold."""
    rows = table.objects.filter(environment=environment).in_bulk()
    outside = {row.name: row for key, row in rows.items() if str(key) not in names}
    for key, name in names.items():
        if name in outside:
            raise Conflict(
                f"{name} is now the name of another {table._meta.verbose_name}. "
                "Rename that one, then roll back."
            )
        row = rows.get(UUID(key))
        if row is not None and row.name != name:
            row.name = key  # for the moment: another row may still hold the name
            row.save(update_fields=["name"])


def _gone(revision: Revision, what: str, remedy: str) -> Conflict:
    return Conflict(f"Revision {revision.number} cannot be brought back: {what}. {remedy}.")
