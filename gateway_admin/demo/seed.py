"""Moves the demonstration's organisation in, through the services that pages use.

Everything is written in one transaction: either all of it is there or nothing. The history
of publishes is played step by step; afterwards each step's revision and prices are dated
back to the day the table gives, so that pages have a past to show.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pgtrigger
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.roles import Role
from gateway_admin.accounts.services import audit, organisation_update, user_create
from gateway_admin.catalog import services as catalog
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    Model,
    ModelAlias,
    Price,
    Provider,
)
from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.budgets import budgets_seed
from gateway_admin.demo.limits import limits_seed
from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.services import revision_publish
from gateway_admin.keys.models import Membership, Team, VirtualKey
from gateway_admin.keys.services import AnswerRules, key_create, key_revoke, keys_block
from gateway_admin.keys.team_services import member_add, team_create
from gateway_admin.lib.errors import Conflict
from gateway_admin.usage.rollups import follow_time_zone

SEED_LOCK = 7_146_203_119  # any number; the same for every process


@dataclass(frozen=True)
class Cast:
    """The rows that later steps refer to, by their names in the tables."""

    people: dict[str, User]
    teams: dict[str, Team]
    providers: dict[str, Provider]
    models: dict[str, Model]
    admin: User


def demo_seed(*, data_dir: Path, simulator_url: str) -> bool:
    """Seed unless it is seeded; returns whether it was done now.

    Raises Conflict where somebody's real data is, and in production.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [SEED_LOCK])
        organisation = Organisation.objects.select_for_update().get()
        if organisation.demo_since is not None:
            simulator_moved(simulator_url=simulator_url)
            return False
        refuse_real_data()
        now = timezone.now()
        Organisation.objects.update(demo_since=now)
        stored = _seed(organisation, simulator_url=simulator_url, now=now)
        # Written before the commit: a secret that nobody can read any more would be worse
        # than a file that the next attempt replaces.
        state.stored_write(data_dir, stored)
    follow_time_zone()
    return True


def refuse_real_data() -> None:
    """Raise Conflict unless catalog and keys are empty and this is no production."""
    refuse_production()
    counts = {
        "provider": Provider.objects.count(),
        "model": Model.objects.count(),
        "team": Team.objects.count(),
        "virtual key": VirtualKey.objects.count(),
    }
    found = [f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n]
    if found:
        raise Conflict(
            f"This installation has data of its own ({', '.join(found)}): the demonstration moves "
            "only into an empty one. Give it another: GATEWAY_DATA_DIR=.gateway-demo make demo"
        )


def refuse_production() -> None:
    if settings.PRODUCTION:
        raise Conflict("The demonstration does not move into production (GATEWAY_ENV).")


@transaction.atomic
def simulator_moved(*, simulator_url: str) -> bool:
    """Point the demonstration's credentials at the simulator's present address; publish that."""
    admin = User.objects.filter(email=tables.PEOPLE[0].email, is_demo=True).first()
    moved: dict[str, Environment] = {}
    for credential in Credential.objects.filter(provider__is_demo=True).select_related(
        "provider", "environment"
    ):
        params = connection_params(credential.provider.kind, simulator_url)
        if params != credential.params:
            catalog.credential_update(actor=admin, credential=credential, params=params)
            moved[credential.environment.slug] = credential.environment
    for environment in moved.values():
        comment = "The simulator listens on another port"
        revision_publish(environment=environment, actor=admin, comment=comment)
    return bool(moved)


def _seed(organisation: Organisation, *, simulator_url: str, now: datetime) -> state.Stored:
    people, logins = _people()
    admin = people[tables.PEOPLE[0].alias]
    if organisation.name == Organisation._meta.get_field("name").default:
        zone = tables.TIME_ZONE if organisation.time_zone == "UTC" else organisation.time_zone
        organisation_update(actor=admin, name=tables.NAME, time_zone=zone)
    teams = _teams(admin, people)
    providers, models = _providers(admin), _models(admin)
    cast = Cast(people, teams, providers, models, admin)
    main = Environment.objects.get(slug=tables.MAIN)
    _history(main, cast, simulator_url=simulator_url, now=now)
    for slug, names in tables.OTHER_ENVIRONMENTS.items():
        if environment := Environment.objects.filter(slug=slug).first():
            published = now - timedelta(days=tables.HISTORY[tables.TRIALS_STEP].days_ago, minutes=9)
            _other_environment(environment, names, cast, simulator_url, published=published)
    keys = _keys(cast, now=now)
    budgets_seed(admin=cast.admin, environment=main)
    limits_seed(admin=cast.admin, environment=main, now=now)
    _date_rows(now)
    audit(actor=admin, action="demo.seed", target=organisation)
    return {"keys": keys, "logins": logins}


def _people() -> tuple[dict[str, User], list[state.StoredLogin]]:
    people: dict[str, User] = {}
    logins: list[state.StoredLogin] = []
    admin: User | None = None
    for row in tables.PEOPLE:
        password = secrets.token_urlsafe(12) if row.signs_in else None
        person = user_create(
            actor=admin, email=row.email, name=row.name, role=Role(row.role), password=password
        )
        admin = admin or person
        people[row.alias] = person
        if password:
            logins.append({"email": row.email, "password": password, "role": row.role})
    User.objects.filter(pk__in=[person.pk for person in people.values()]).update(is_demo=True)
    return people, logins


def _teams(admin: User, people: dict[str, User]) -> dict[str, Team]:
    teams = {
        row.slug: team_create(
            actor=admin, name=row.name, slug=row.slug, description=row.description
        )
        for row in tables.TEAMS
    }
    for person in tables.PEOPLE:
        if person.team is not None:
            role = Membership.Role.OWNER if person.owns else Membership.Role.MEMBER
            member_add(actor=admin, team=teams[person.team], user=people[person.alias], role=role)
    Team.objects.filter(pk__in=[team.pk for team in teams.values()]).update(is_demo=True)
    return teams


def _providers(admin: User) -> dict[str, Provider]:
    providers = {
        row.slug: catalog.provider_create(actor=admin, kind=row.kind, name=row.name, slug=row.slug)
        for row in tables.PROVIDERS
    }
    Provider.objects.filter(slug__in=providers).update(is_demo=True)
    return providers


def _models(admin: User) -> dict[str, Model]:
    models = {
        row.name: catalog.model_create(
            actor=admin,
            name=row.name,
            mode=row.mode,
            description=row.description,
            context_window=row.context_window,
            max_output_tokens=row.max_output_tokens,
        )
        for row in tables.MODELS
    }
    Model.objects.filter(name__in=models).update(is_demo=True)
    return models


def _history(environment: Environment, cast: Cast, *, simulator_url: str, now: datetime) -> None:
    credentials: dict[str, Credential] = {}
    for step, publish in enumerate(tables.HISTORY):
        began, actor = timezone.now(), cast.people[publish.by]
        for row in (row for row in tables.DEPLOYMENTS if row.step == step):
            if row.provider not in credentials:
                provider = cast.providers[row.provider]
                credentials[row.provider] = _credential(environment, provider, actor, simulator_url)
            _deployment(row, environment, credentials[row.provider], cast, actor)
        _aliases(step, environment, cast, actor)
        _changes(step, environment, cast, actor)
        revision = revision_publish(environment=environment, actor=actor, comment=publish.comment)
        _date_back(revision, since=began, at=now - timedelta(days=publish.days_ago))


def _changes(step: int, environment: Environment, cast: Cast, actor: User) -> None:
    """What a step changes beside deployments and aliases."""
    if step == 0:
        catalog.environment_update(actor=actor, environment=environment, default_model="default")
    if step == tables.CHAINS_STEP:
        for row in tables.CHAINS:
            catalog.chain_create(
                actor=actor,
                environment=environment,
                model=cast.models[row.model],
                targets=[cast.models[name] for name in row.targets],
                kind=row.kind,
            )
    if step == tables.OWN_PRICE_STEP:
        name, prices = tables.OWN_PRICE_AFTER
        deployment = Deployment.objects.get(environment=environment, name=name)
        catalog.deployment_update(
            actor=actor, deployment=deployment, price_source="own", price_units=_units(prices)
        )
    if step == tables.TIMEOUT_STEP:
        name, timeout_s = tables.TIMEOUT_AFTER
        deployment = Deployment.objects.get(environment=environment, name=name)
        catalog.deployment_update(actor=actor, deployment=deployment, timeout_s=timeout_s)


def _credential(
    environment: Environment, provider: Provider, actor: User, simulator_url: str
) -> Credential:
    return catalog.credential_create(
        actor=actor,
        environment=environment,
        provider=provider,
        name=f"{provider.slug}-{environment.slug}",
        params=connection_params(provider.kind, simulator_url),
        secret=_invented_secret(provider.kind, environment.slug),
    )


def _invented_secret(kind: str, environment: str) -> dict[str, str]:
    """The simulator takes any; it tells credentials apart by their last four signs."""
    text = f"sk-simulated-{kind}-{environment}"
    if kind == "ollama":
        return {}
    if kind == "bedrock":
        return {"aws_access_key_id": f"DEMO-{text}", "aws_secret_access_key": text}
    return {"api_key": text}


def _deployment(
    row: tables.DeploymentRow,
    environment: Environment,
    credential: Credential,
    cast: Cast,
    actor: User,
) -> Deployment:
    own = isinstance(row.price, tuple)
    return catalog.deployment_create(
        actor=actor,
        environment=environment,
        name=row.name,
        model=cast.models[row.model],
        credential=credential,
        upstream_model=row.upstream,
        price_source="own" if own else row.price,  # type: ignore[arg-type]
        price_units=_units(row.price) if isinstance(row.price, tuple) else None,
        weight=row.weight,
        region=row.region,
        rpm=row.rpm,
        tpm=row.tpm,
        timeout_s=row.timeout_s,
    )


def _units(prices: tuple[str, str]) -> dict[str, str]:
    return {"input_token": prices[0], "output_token": prices[1]}


def _aliases(step: int, environment: Environment, cast: Cast, actor: User) -> None:
    for name, model, at in tables.ALIASES:
        if at != step:
            continue
        alias = ModelAlias.objects.filter(environment=environment, name=name).first()
        if alias is None:
            catalog.alias_create(
                actor=actor, environment=environment, name=name, model=cast.models[model]
            )
        else:
            catalog.alias_update(actor=actor, alias=alias, model=cast.models[model])


def _other_environment(
    environment: Environment,
    names: tuple[str, ...],
    cast: Cast,
    simulator_url: str,
    *,
    published: datetime,
) -> None:
    began = timezone.now()
    rows = [row for row in tables.DEPLOYMENTS if row.name in names]
    credentials: dict[str, Credential] = {}
    for row in rows:
        if row.provider not in credentials:
            provider = cast.providers[row.provider]
            credentials[row.provider] = _credential(
                environment, provider, cast.admin, simulator_url
            )
        _deployment(row, environment, credentials[row.provider], cast, cast.admin)
    default = cast.models[rows[0].model]
    catalog.alias_create(actor=cast.admin, environment=environment, name="default", model=default)
    catalog.environment_update(actor=cast.admin, environment=environment, default_model="default")
    revision = revision_publish(
        environment=environment, actor=cast.admin, comment="A smaller set for trials"
    )
    _date_back(revision, since=began, at=published)


def _keys(cast: Cast, *, now: datetime) -> list[state.StoredKey]:
    stored: list[state.StoredKey] = []
    environments = {row.slug: row for row in Environment.objects.all()}
    for row in tables.KEYS:
        if row.environment not in environments:
            continue
        key, secret = key_create(
            actor=cast.admin,
            environment=environments[row.environment],
            name=row.name,
            owner=cast.people[row.owner] if row.owner else None,
            team=cast.teams[row.team],
            allowed_models=sorted(row.mix) if row.restricted else None,
            expires_at=now + timedelta(days=row.expires_days) if row.expires_days else None,
            tags={"application": row.name, **row.tags},
            answers=AnswerRules(cache=row.cache),
        )
        if row.state == "active":
            stored.append({"name": row.name, "environment": row.environment, "secret": secret})
        else:
            _end(key, row, cast.admin, now=now)
    return stored


def _end(key: VirtualKey, row: tables.KeyRow, admin: User, *, now: datetime) -> None:
    if row.state == "blocked":
        keys_block(actor=admin, keys=[key], reason=tables.BLOCK_REASONS[row.name])
    elif row.state == "revoked":
        key_revoke(actor=admin, key=key)
    else:  # the service takes no expiry in the past; the key has to have had a life
        VirtualKey.objects.filter(pk=key.pk).update(expires_at=now - _ended(row))


def _ended(row: tables.KeyRow) -> timedelta:
    return timedelta(days=row.ended_days_ago or 0)


def _date_back(revision: Revision, *, since: datetime, at: datetime) -> None:
    """Give a step's revision and prices their day.

    Both are immutable by trigger. The triggers are passed over here alone, inside this
    transaction, for rows that this same transaction has just made: nothing that anybody
    has ever seen changes. Where revisions of an earlier demonstration are left, the days
    would contradict the numbers: then the new ones keep the time at which they were made.
    """
    earlier = Revision.objects.filter(
        environment=revision.environment, number__lt=revision.number, published_at__gt=at
    )
    with pgtrigger.ignore("fleet.Revision:revision_immutable", "catalog.Price:price_immutable"):
        if not earlier.exists():
            Revision.objects.filter(pk=revision.pk).update(published_at=at)
        Price.objects.filter(effective_from__gte=since).update(effective_from=at)


def _date_rows(now: datetime) -> None:
    """People, teams and supply are as old as what they did."""
    first = now - timedelta(days=tables.DAYS + 3)
    User.objects.filter(is_demo=True).update(date_joined=first)
    Team.objects.filter(is_demo=True).update(created_at=first)
    Provider.objects.filter(is_demo=True).update(created_at=first)
    Model.objects.filter(is_demo=True).update(created_at=first)
    for row in tables.DEPLOYMENTS:
        made = now - timedelta(days=tables.HISTORY[row.step].days_ago, hours=1)
        Deployment.objects.filter(name=row.name, model__is_demo=True).update(created_at=made)
    Credential.objects.filter(provider__is_demo=True).update(created_at=first)
    for place, key in enumerate(tables.KEYS):
        born = now - timedelta(days=tables.DAYS + 1 - place % 4, minutes=7 * place)
        VirtualKey.objects.filter(name=key.name, team__is_demo=True).update(created_at=born)
