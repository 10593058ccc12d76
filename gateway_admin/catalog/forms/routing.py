"""Forms of deployments and fallback chains."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django import forms

from gateway_admin.catalog import prices, queries
from gateway_admin.catalog.forms.base import JsonObjectField, ServiceForm, lane_field
from gateway_admin.catalog.forms.supply import ModelChoice
from gateway_admin.catalog.kinds import Kind, kind_of
from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    PriceBookEntry,
    model_name_validator,
)
from proxy.contract import PRICE_UNITS

COMMON_UNITS = ("input_token", "output_token", "cache_read_token", "cache_write_token")
FURTHER_UNITS = tuple(unit for unit in PRICE_UNITS if unit not in COMMON_UNITS)

if TYPE_CHECKING:  # generic for the type checker only
    _CredentialChoiceField = forms.ModelChoiceField[Credential]
else:
    _CredentialChoiceField = forms.ModelChoiceField


class CredentialChoice(_CredentialChoiceField):
    """The environment's credentials, grouped by provider."""

    def __init__(self, environment: Environment, **kwargs: Any) -> None:
        rows = queries.credentials_of(environment).order_by("provider__name", "name")
        super().__init__(queryset=rows, **kwargs)
        groups: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            suffix = "" if row.enabled else " (disabled)"
            groups.setdefault(row.provider.name, []).append((str(row.pk), f"{row.name}{suffix}"))
        self.choices = [("", "Choose a credential"), *groups.items()]


class DeploymentForm(ServiceForm):
    """Fields adapt to the provider kind of the chosen credential."""

    upstream_model = forms.CharField(label="Provider's model", max_length=200)
    model_name = forms.CharField(
        label="Serves the model",
        max_length=120,
        validators=[model_name_validator],
        help_text="The name clients ask for. A new name makes a new model.",
        widget=forms.TextInput(attrs={"list": "model-names", "spellcheck": "false"}),
    )
    name = forms.CharField(
        max_length=120,
        required=False,
        label="Deployment's name",
        help_text="Left empty, it is composed of model and credential.",
    )
    region = forms.CharField(max_length=60, required=False)
    weight = forms.IntegerField(
        min_value=1,
        max_value=1000,
        initial=1,
        help_text="Share of the model's traffic beside its other deployments.",
    )
    rpm = forms.IntegerField(label="Requests per minute", required=False, min_value=1)
    tpm = forms.IntegerField(label="Tokens per minute", required=False, min_value=1)
    timeout_s = forms.FloatField(
        label="Time-out, seconds", required=False, min_value=0.1, max_value=6000
    )
    stream_timeout_s = forms.FloatField(
        label="Time-out until the first byte, seconds",
        required=False,
        min_value=0.1,
        max_value=6000,
    )
    lane = lane_field(
        "Choose LiteLLM always when this provider answers differently when called directly."
    )
    params = JsonObjectField(
        label="Further LiteLLM parameters",
        help_text='A JSON object, for example {"extra_headers": {"x-team": "search"}}. '
        "Nothing secret.",
    )
    price_source = forms.ChoiceField(
        label="Price",
        widget=forms.RadioSelect,
        initial="book",
        choices=[("book", "Price book"), ("own", "Own price"), ("none", "Unpriced")],
    )

    def __init__(
        self,
        *args: Any,
        environment: Environment,
        deployment: Deployment | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.environment = environment
        self.fields["credential"] = CredentialChoice(environment)
        for unit in PRICE_UNITS:
            self.fields[f"price_{unit}"] = _price_field(unit)
        if deployment is not None:
            self._fill(deployment)
        self.credential = self._chosen_credential()
        self.entry = self._find_entry()
        self._adapt(self.credential)

    def _fill(self, deployment: Deployment) -> None:
        for name in self.fields.keys() & vars(deployment).keys():
            self.fields[name].initial = getattr(deployment, name)
        self.fields["credential"].initial = deployment.credential_id
        self.fields["model_name"].initial = deployment.model.name
        price = queries.current_price(deployment)
        self.fields["price_source"].initial = price.source if price else "none"
        for unit, amount in (price.units if price else {}).items():
            self.fields[f"price_{unit}"].initial = quote_text(unit, amount)

    def _chosen_credential(self) -> Credential | None:
        field = self.fields["credential"]
        assert isinstance(field, CredentialChoice)
        value = self.given("credential")
        try:
            return field.queryset.filter(pk=value).first() if value and field.queryset else None
        except forms.ValidationError:
            return None  # not an id; validation says so at the field

    def _find_entry(self) -> PriceBookEntry | None:
        if self.credential is None:
            return None
        provider = self.credential.provider
        return prices.price_for(
            kind=provider.kind,
            litellm_provider=provider.litellm_provider,
            upstream_model=self.given("upstream_model"),
            region=self.given("region"),
        )

    def _adapt(self, credential: Credential | None) -> None:
        kind: Kind | None = kind_of(credential.provider) if credential else None
        upstream = self.fields["upstream_model"]
        upstream.widget.attrs |= {"spellcheck": "false", "autocomplete": "off"}
        region = self.fields["region"]
        region.help_text = "For the record; shown on pages and in reports."
        if kind is None:
            return
        upstream.help_text = kind.model_help
        upstream.widget.attrs["placeholder"] = kind.example
        self.fields["model_name"].widget.attrs["placeholder"] = kind.example
        if kind.region_param:
            region.help_text = "Left empty, the credential's region."

    @property
    def book_prices(self) -> list[tuple[str, str]]:
        return quotes(self.entry.units) if self.entry else []

    def price_fields(self) -> list[forms.BoundField]:
        return [self[f"price_{unit}"] for unit in COMMON_UNITS]

    def further_price_fields(self) -> list[forms.BoundField]:
        return [self[f"price_{unit}"] for unit in FURTHER_UNITS]

    def further_prices_open(self) -> bool:
        return any(field.value() or field.errors for field in self.further_price_fields())

    def price_units(self) -> dict[str, str]:
        """Own prices per one unit, from the figures as people quote them."""
        given = {unit: self.cleaned_data.get(f"price_{unit}") for unit in PRICE_UNITS}
        return {
            unit: prices.from_quote(unit, amount)
            for unit, amount in given.items()
            if amount is not None
        }

    def prefill_own_prices(self) -> None:
        """Offer the book's figures where no own price was typed."""
        if self.entry is None or self.given("price_source") == "own":
            return
        units = self.entry.units
        self.replace_data(
            {
                f"price_{unit}": quote_text(unit, units[unit]) if unit in units else ""
                for unit in PRICE_UNITS
            }
        )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("price_source") == "own" and not self.price_units() and not self.errors:
            self.add_error("price_input_token", "Enter at least one price.")
        return cleaned


def _price_field(unit: str) -> forms.DecimalField:
    label = prices.UNIT_LABELS[unit]
    per = "1M tokens" if prices.is_token_unit(unit) else "one"
    return forms.DecimalField(
        label=f"{label}, $ per {per}",
        required=False,
        min_value=Decimal(0),
        max_value=prices.MAX_UNIT_PRICE,
        max_digits=24,
        decimal_places=14,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


def quote_text(unit: str, amount: str) -> str:
    return prices.plain_decimal(prices.per_quote(unit, amount))


def quotes(units: dict[str, str]) -> list[tuple[str, str]]:
    """(label, "$2.50 / 1M") of each price, in the order of PRICE_UNITS."""
    return [
        (
            prices.UNIT_LABELS[unit],
            f"{prices.dollars(prices.per_quote(unit, units[unit]))} "
            f"{'/ 1M' if prices.is_token_unit(unit) else 'each'}",
        )
        for unit in PRICE_UNITS
        if unit in units
    ]


class ChainForm(ServiceForm):
    """Model and kind; the steps are repeated `target` values, in order."""

    kind = forms.ChoiceField(
        label="When the model",
        widget=forms.RadioSelect,
        initial=FallbackChain.Kind.GENERAL,
        choices=[
            (FallbackChain.Kind.GENERAL, "fails or is overloaded (general)"),
            (FallbackChain.Kind.CONTEXT_WINDOW, "finds the request too long (context window)"),
            (FallbackChain.Kind.CONTENT_POLICY, "refuses the content (content policy)"),
        ],
    )

    def __init__(
        self,
        *args: Any,
        environment: Environment,
        chain: FallbackChain | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"] = ModelChoice(environment, label="Model")
        self.fields["add"] = ModelChoice(environment, label="Add a step", required=False)
        self.fields["add"].widget.attrs["class"] = "form-select"
        # A field of its own so that messages about the steps have a place.
        self.fields["targets"] = forms.CharField(required=False, widget=forms.HiddenInput)
        if chain is not None:
            del self.fields["model"], self.fields["kind"]
        self.order_fields(["model", "kind", "targets", "add"])


class CloneForm(ServiceForm):
    name = forms.CharField(max_length=120, label="Name of the copy")

    def __init__(self, *args: Any, deployment: Deployment, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = (
            Credential.objects.filter(provider=deployment.provider)
            .exclude(pk=deployment.credential_id)
            .select_related("environment")
            .order_by("environment__position", "name")
        )
        field = forms.ModelChoiceField(queryset=rows, label="Credential")
        groups: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            groups.setdefault(row.environment.name, []).append((str(row.pk), row.name))
        field.choices = [("", "Choose a credential"), *groups.items()]
        self.fields["credential"] = field
        self.fields["name"].initial = deployment.name
