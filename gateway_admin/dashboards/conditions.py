"""What is not well now, in plain words: what it means, and what the product does about it.

Each condition goes by itself when its cause does: nothing here is stored or dismissed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2s

from django.db.models import Count
from django.urls import reverse

from gateway_admin.catalog.models import Credential, Deployment, Environment
from gateway_admin.dashboards.condition import NAMED, Condition, earliest, names_of
from gateway_admin.dashboards.replica_conditions import replica_conditions
from gateway_admin.fleet.breakers import newest_of
from gateway_admin.fleet.models import BackgroundSign, BreakerTransition, ReplicaWorker, Revision
from gateway_admin.fleet.presentation import replica_views
from gateway_admin.fleet.queries import replicas_of
from gateway_admin.lib.redis_sight import redis_away_since

BACKGROUND_LATE_AFTER = timedelta(minutes=3)  # its most frequent task runs every minute


def conditions_of(
    environment: Environment, *, desired: int | None, now: datetime
) -> list[Condition]:
    """What is degraded in an environment, the worst first. `desired` is the active revision."""
    replicas = replica_views(replicas_of(environment), desired=desired, now=now)
    found = [
        *_redis(),
        *_counters(environment, [worker for view in replicas for worker in view.live]),
        *replica_conditions(replicas, published=desired is not None),
        *_breakers(environment),
        *_credentials(environment),
        *_background(now),
    ]
    return sorted(found, key=lambda condition: condition.tone != "error")


def keys_of(conditions: Iterable[Condition]) -> str:
    """Which conditions a page shows, short enough for an address."""
    keys = "\n".join(sorted(condition.key for condition in conditions))
    return blake2s(keys.encode(), digest_size=6).hexdigest() if keys else "none"


def news_of(conditions: Sequence[Condition], was: str | None) -> str:
    """What to read aloud when a page that showed `was` (see `keys_of`) shows these now."""
    if was is None or was == keys_of(conditions):
        return ""
    if not conditions:
        return "Everything is well again"
    return f"Not well: {'; '.join(condition.title for condition in conditions)}"


def _redis() -> Iterator[Condition]:
    since = redis_away_since()
    if since is not None:
        yield Condition(
            "redis",
            "warning",
            "Redis does not answer this site",
            "Replicas learn of changes by polling, within seconds instead of at once. Tests of "
            "deployments and other background work wait.",
            "Publishing, keys, pages and usage go on. The site tries again all the time.",
            since,
        )


def _counters(environment: Environment, live: Sequence[ReplicaWorker]) -> Iterator[Condition]:
    # A replica that was never given a Redis counts alone, too, and is well.
    alone = [worker for worker in live if worker.counters == "local" and not worker.healthy]
    unbuilt = [worker for worker in live if worker.counters == "unbuilt"]
    part = f"{len(alone)} of {len(live)} workers"
    meaning = f"{part} cannot reach the shared counters in Redis."
    if alone and environment.on_counter_outage == Environment.CounterOutage.REFUSE:
        yield Condition(
            "counters",
            "error",
            "Requests with a budget or limit are refused",
            meaning,
            "They are answered with status 503 until Redis is back, as this environment asks for.",
            earliest(worker.counters_since for worker in alone),
            reverse("catalog:environment-edit", args=[environment.slug]),
            "Change that",
        )
    elif alone:
        yield Condition(
            "counters",
            "warning",
            "Each worker counts budgets and limits alone",
            meaning,
            "Each spends its share of what was last known to be left. The counters are made "
            "right from the ledger when Redis is back.",
            earliest(worker.counters_since for worker in alone),
            reverse("fleet:replica-list"),
            "See the replicas",
        )
    if unbuilt:
        yield Condition(
            "unbuilt",
            "warning",
            "Budgets' counters are being built anew",
            "Redis is new or was emptied.",
            "Workers count alone until the ledger's sums are in place, which takes seconds.",
            earliest(worker.counters_since for worker in unbuilt),
        )


def _breakers(environment: Environment) -> Iterator[Condition]:
    if not environment.breaker_enabled:
        return
    rows = Deployment.objects.filter(environment=environment, enabled=True)
    by_model: dict[str, list[Deployment]] = defaultdict(list)
    for row in rows.select_related("model").order_by("model__name", "name"):
        by_model[row.model.name].append(row)
    newest = newest_of(row.pk for served in by_model.values() for row in served)
    opened = {key: row for key, row in newest.items() if row.state == "open"}
    dead = [name for name, served in by_model.items() if all(row.pk in opened for row in served)]
    if dead:
        since = min(opened[row.pk].at for name in dead for row in by_model[name])
        yield _dead(environment, dead, since)
    rest = {
        row.name: opened[row.pk]
        for name, served in by_model.items()
        for row in served
        if name not in dead and row.pk in opened
    }
    if rest:
        yield _kept_out(rest)


def _dead(environment: Environment, models: Sequence[str], since: datetime) -> Condition:
    refused = environment.breaker_all_open == Environment.AllOpen.REFUSE
    return Condition(
        "model-out",
        "error",
        f"No deployment of {names_of(models)} takes calls",
        "The breakers of all its deployments are open.",
        "Requests follow its fallback chain; without one they are "
        f"{'refused at once' if refused else 'tried anyway'}. A breaker tries by itself unless "
        "it was opened by hand.",
        since,
        reverse("fleet:breaker-list"),
        "See the breakers",
    )


def _kept_out(opened: Mapping[str, BreakerTransition]) -> Condition:
    """`opened`: by the deployment's name."""
    several = len(opened) > 1
    names = names_of(list(opened))
    reasons = list(dict.fromkeys(row.reason for row in opened.values() if row.reason))
    return Condition(
        "breaker-open",
        "warning",
        f"The breakers of {names} are open" if several else f"The breaker of {names} is open",
        f"No call goes there: {'; '.join(reasons[:NAMED])}." if reasons else "No call goes there.",
        "Requests go to the model's other deployments. It tries by itself unless it was opened "
        "by hand.",
        min(row.at for row in opened.values()),
        reverse("fleet:breaker-list"),
        "See the breakers",
    )


def _credentials(environment: Environment) -> Iterator[Condition]:
    rows = (
        Credential.objects.filter(
            environment=environment, enabled=True, last_error_class="authentication"
        )
        .select_related("provider")
        .annotate(used_by=Count("deployments"))
        .order_by("name")
    )
    for credential in (row for row in rows if row.is_refused):
        count = credential.used_by
        noun = "deployment" if count == 1 else "deployments"
        yield Condition(
            f"credential-{credential.pk}",
            "error",
            f"{credential.provider} refuses the credential {credential.name}",
            f"Calls through its {count:,} {noun} fail until it has a secret that the provider "
            "accepts."
            if count
            else "No deployment uses it.",
            "Requests go to deployments behind other credentials, or along fallback chains.",
            credential.last_error_at,
            reverse("catalog:credential-detail", args=[credential.pk]),
            "Replace its secret",
        )


def _background(now: datetime) -> Iterator[Condition]:
    if redis_away_since() is not None:
        return  # it cannot work then, and goes on by itself
    sign = BackgroundSign.objects.filter(pk=BackgroundSign.WORKER).first()
    last = sign.at if sign else _first_publish()
    if last is None or now - last <= BACKGROUND_LATE_AFTER:
        return
    yield Condition(
        "background",
        "warning",
        "Background work stands still",
        "The worker or the scheduler does not run: balances, retention and tests of deployments "
        "wait.",
        "Calls, publishing and usage go on. What waits is made up for when both run again.",
        last,
    )


def _first_publish() -> datetime | None:
    """Since when there was something to do, where no background work was ever done."""
    return Revision.objects.order_by("published_at").values_list("published_at", flat=True).first()
