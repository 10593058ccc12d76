"""Supply as pages and the API show it: states in words, prices as people quote them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.utils.dateparse import parse_datetime

from gateway_admin.catalog import prices
from gateway_admin.catalog.connection_test import is_running
from gateway_admin.catalog.models import Credential, Deployment, FallbackChain, Model, Price
from gateway_admin.catalog.queries import current_prices, deployments_here, has_working_credential
from gateway_admin.catalog.traffic import Signs, signs_of


@dataclass(frozen=True)
class State:
    """A word, the tone of its badge (ok, warn, bad, info, quiet) and what to know about it."""

    tone: str
    word: str
    detail: str = ""


BREAKERS = {
    "open": State("bad", "Breaker open", "Kept out: no call goes to it."),
    "half_open": State("warn", "Breaker half-open", "A few trial calls decide."),
}


NO_SIGNS = Signs()


def deployment_state(deployment: Deployment, signs: Signs = NO_SIGNS) -> State:
    """Whether the deployment can answer, as far as is known. Its breaker is told beside it."""
    test = deployment.last_test or {}
    if not deployment.enabled:
        return State("quiet", "Disabled")
    if is_running(deployment):
        return State("info", "Testing")
    reason = has_working_credential(deployment)
    if reason is not None:
        return State("bad", "Not callable", f"{reason[0].upper()}{reason[1:]}.")
    if test.get("state") == "ok":
        return State("ok", "Working", "The last test succeeded.")
    answered, tested = signs.answered.get(deployment.pk), tested_at(deployment)
    if test.get("state") == "error" and not (answered and tested and answered > tested):
        return State("bad", "Test failed", test.get("title", ""))
    if answered:
        return State("ok", "Working", "It answered calls in the last 24 hours.")
    return State("quiet", "Not tested", "No test was made yet.")


def model_state(deployments: Sequence[Deployment], signs: Signs = NO_SIGNS) -> State:
    """A model's availability in one environment, from its deployments there."""
    if not deployments:
        return State("quiet", "Not deployed")
    states = [_reachable(deployment, signs) for deployment in deployments if deployment.enabled]
    if not states:
        return State("quiet", "Disabled")
    good = [state for state in states if state.tone not in ("bad", "warn")]
    if all(state.tone == "bad" for state in states):
        return State("bad", "Unavailable", states[0].detail)
    if len(good) < len(states):
        return State("warn", "Degraded", f"{len(good)} of {len(states)} deployments work.")
    if all(state.word == "Not tested" for state in good):
        return State("quiet", "Not tested", "No deployment was tested yet.")
    return State("ok", "Available")


def _reachable(deployment: Deployment, signs: Signs) -> State:
    """Its state, or its breaker's where that keeps calls from a deployment that works."""
    state = deployment_state(deployment, signs)
    if state.tone == "bad":
        return state
    return BREAKERS.get(signs.breakers.get(deployment.pk, ""), state)


def tested_at(deployment: Deployment) -> datetime | None:
    """When its last test began or ended."""
    return parse_datetime(deployment.last_test["at"]) if deployment.last_test else None


def credential_state(credential: Credential) -> State:
    if not credential.enabled:
        return State("quiet", "Disabled")
    if credential.is_refused:
        return State("bad", "Refused", credential.last_error)
    if credential.last_success_at is not None:
        return State("ok", "Working")
    return State("quiet", "Not used yet")


@dataclass(frozen=True)
class Quote:
    """A price in one column: "$2.50", "free", "unpriced" or a range over deployments."""

    text: str
    exact: str = ""
    is_priced: bool = True


def quote(unit: str, found: Iterable[Price | None]) -> Quote:
    """What a unit costs with these deployments, per million tokens or per one."""
    amounts = [
        Decimal(price.units[unit]) if price and unit in price.units else None for price in found
    ]
    known = sorted({amount for amount in amounts if amount is not None})
    if not known:
        return Quote("–", is_priced=False)
    low, high = (prices.per_quote(unit, str(amount)) for amount in (known[0], known[-1]))
    text = prices.dollars(low) if low == high else f"{prices.dollars(low)}–{prices.dollars(high)}"
    exact = " · ".join(f"${prices.plain_decimal(amount)} per {_singular(unit)}" for amount in known)
    return Quote(text, exact)


def _singular(unit: str) -> str:
    return "token" if prices.is_token_unit(unit) else unit.replace("_", " ")


@dataclass
class ModelRow:
    """A line of the list of models, in one environment."""

    model: Model
    deployments: list[Deployment]
    prices: list[Price | None] = field(default_factory=list)
    signs: Signs = NO_SIGNS

    @property
    def state(self) -> State:
        return model_state(self.deployments, self.signs)

    @property
    def input(self) -> Quote:
        return quote("input_token", self.prices)

    @property
    def output(self) -> Quote:
        return quote("output_token", self.prices)

    @property
    def cached(self) -> Quote:
        return quote("cache_read_token", self.prices)

    @property
    def other(self) -> list[tuple[str, Quote]]:
        """Prices of units that are not tokens: images, seconds, queries."""
        units = {unit for price in self.prices if price for unit in price.units}
        return [
            (prices.UNIT_LABELS[unit], quote(unit, self.prices))
            for unit in prices.UNIT_LABELS
            if unit in units and not prices.is_token_unit(unit)
        ]

    @property
    def is_unpriced(self) -> bool:
        """At least one deployment has no price at all."""
        return any(price is None for price in self.prices)


def model_rows(models: Iterable[Model]) -> list[ModelRow]:
    """Rows of models that know their deployments (`queries.models_in`); three more queries."""
    rows = [ModelRow(model, deployments_here(model)) for model in models]
    deployments = [deployment for row in rows for deployment in row.deployments]
    found, signs = current_prices(row.pk for row in deployments), signs_of(deployments)
    for row in rows:
        row.prices = [found.get(deployment.pk) for deployment in row.deployments]
        row.signs = signs
    return rows


@dataclass(frozen=True)
class DeploymentRow:
    """A line of the list of deployments."""

    deployment: Deployment
    price: Price | None
    signs: Signs = NO_SIGNS

    @property
    def state(self) -> State:
        return deployment_state(self.deployment, self.signs)

    @property
    def breaker(self) -> State | None:
        """None: it lets calls through."""
        return BREAKERS.get(self.signs.breakers.get(self.deployment.pk, ""))

    @property
    def input(self) -> Quote:
        return quote("input_token", [self.price])

    @property
    def output(self) -> Quote:
        return quote("output_token", [self.price])

    @property
    def other(self) -> list[tuple[str, Quote]]:
        return ModelRow(self.deployment.model, [], [self.price]).other

    @property
    def is_unpriced(self) -> bool:
        return self.price is None

    @property
    def tested_at(self) -> datetime | None:
        return tested_at(self.deployment)


def deployment_rows(deployments: Iterable[Deployment]) -> list[DeploymentRow]:
    found = list(deployments)
    in_force = current_prices(deployment.pk for deployment in found)
    signs = signs_of(found)
    return [DeploymentRow(row, in_force.get(row.pk), signs) for row in found]


@dataclass(frozen=True)
class Step:
    """One box of a drawn chain; `reason` says why it could not answer now."""

    model: Model
    reason: str


@dataclass(frozen=True)
class ChainRow:
    """A fallback chain as it is drawn."""

    chain: FallbackChain
    steps: list[Step]


def chain_rows(
    chains: Iterable[FallbackChain], unmet: Mapping[tuple[UUID, UUID], str]
) -> list[ChainRow]:
    """`unmet` as `queries.unmet_targets` returns it."""
    return [
        ChainRow(
            chain,
            [
                Step(step.model, unmet.get((chain.pk, step.model_id), ""))
                for step in chain.steps.all()
            ],
        )
        for chain in chains
    ]
