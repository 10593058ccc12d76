"""Shapes of supply in the REST API. Field names are those of the models; amounts are strings."""

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from gateway_admin.catalog.models import (
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Price,
    Provider,
)
from gateway_admin.catalog.presentation import model_state
from proxy.contract import PRICE_UNITS


class CreateOnly(serializers.ModelSerializer[Any]):
    """Fields named by `create_only` are refused in a PATCH that would change them."""

    create_only: ClassVar[tuple[str, ...]] = ()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if self.instance is None:
            return attrs
        for name in self.create_only:
            if name in attrs and attrs.pop(name) != getattr(self.instance, name):
                raise serializers.ValidationError({name: "This cannot be changed afterwards."})
        return attrs

    def get_validators(self) -> list[Any]:
        return []  # uniqueness is checked by the services, under the draft's lock


def environment_field() -> "serializers.SlugRelatedField[Environment]":
    return serializers.SlugRelatedField(
        slug_field="slug", queryset=Environment.objects.all(), help_text="The environment's slug."
    )


def model_field() -> "serializers.SlugRelatedField[Model]":
    return serializers.SlugRelatedField(
        slug_field="name", queryset=Model.objects.all(), help_text="The model's name."
    )


class EnvironmentSerializer(CreateOnly):
    create_only = ("slug",)

    class Meta:
        model = Environment
        fields = [
            "id",
            "slug",
            "name",
            "colour",
            "position",
            "auto_publish",
            "default_model",
            "fallback_enabled",
            "timeout_s",
            "stream_timeout_s",
            "num_retries",
            "total_timeout_s",
            "retry_backoff_s",
            "default_output_tokens",
            "on_counter_outage",
            "breaker_enabled",
            "breaker_consecutive_failures",
            "breaker_failure_percent",
            "breaker_minimum_calls",
            "breaker_window_s",
            "breaker_open_s",
            "breaker_half_open_permits",
            "breaker_close_after_successes",
            "breaker_slow_call_s",
            "breaker_all_open",
            "cache_enabled",
            "cache_ttl_s",
            "cache_max_entry_bytes",
        ]


class ProviderSerializer(CreateOnly):
    create_only = ("kind", "slug", "litellm_provider")

    class Meta:
        model = Provider
        fields = ["id", "slug", "name", "kind", "litellm_provider", "created_at"]
        extra_kwargs = {
            "slug": {"required": False, "help_text": "Composed of the name when left out."},
            "litellm_provider": {
                "required": False,
                "help_text": "LiteLLM's own name; needed for kind `other` only.",
            },
        }


class CredentialSerializer(CreateOnly):
    environment = environment_field()
    provider = serializers.PrimaryKeyRelatedField(queryset=Provider.objects.all())
    params = serializers.DictField(
        required=False, help_text="Parameters that are not secret, by LiteLLM's names."
    )
    secret = serializers.DictField(
        child=serializers.CharField(trim_whitespace=True, max_length=20_000),
        write_only=True,
        required=False,
        allow_empty=False,
        help_text="Secret fields of the provider's kind, for example `api_key`. Never returned.",
    )
    fingerprint = serializers.SerializerMethodField(
        help_text="Keyed digest: equal secrets have equal ones. Null: no secret."
    )
    secret_version = serializers.SerializerMethodField()
    secret_set_at = serializers.SerializerMethodField()
    hints = serializers.SerializerMethodField(help_text="Last four signs of each secret field.")
    create_only = ("environment", "provider")

    class Meta:
        model = Credential
        fields = [
            "id",
            "environment",
            "provider",
            "name",
            "params",
            "secret",
            "enabled",
            "fingerprint",
            "secret_version",
            "secret_set_at",
            "hints",
            "last_success_at",
            "last_error_at",
            "last_error",
            "created_at",
            "updated_at",
        ]
        read_only_fields = ["last_success_at", "last_error_at", "last_error"]

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_fingerprint(self, credential: Credential) -> str | None:
        return credential.secret.fingerprint if credential.secret else None

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_secret_version(self, credential: Credential) -> int | None:
        return credential.secret.version if credential.secret else None

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_secret_set_at(self, credential: Credential) -> str | None:
        return credential.secret.created_at.isoformat() if credential.secret else None

    @extend_schema_field(serializers.DictField(child=serializers.CharField()))
    def get_hints(self, credential: Credential) -> dict[str, str]:
        return dict(credential.secret.hints) if credential.secret else {}


class UnitPricesField(serializers.DictField):
    """{unit: US dollars per one unit, as a decimal string}"""

    child = serializers.CharField()


UNITS_HELP = f"US dollars per one unit, as decimal strings. Units: {', '.join(PRICE_UNITS)}."


class AvailabilitySerializer(serializers.Serializer[Any]):
    """A model in one environment."""

    environment = serializers.CharField()
    state = serializers.CharField(
        help_text="Available, Degraded, Unavailable, Not tested or Disabled."
    )
    deployments = serializers.IntegerField()
    prices = serializers.ListField(
        child=UnitPricesField(), help_text=f"Distinct prices of its deployments. {UNITS_HELP}"
    )
    unpriced = serializers.BooleanField(help_text="At least one deployment has no price.")


class ModelSerializer(CreateOnly):
    availability = serializers.SerializerMethodField()

    class Meta:
        model = Model
        fields = [
            "id",
            "name",
            "mode",
            "description",
            "context_window",
            "max_output_tokens",
            "cache",
            "lane",
            "availability",
            "created_at",
        ]

    @extend_schema_field(AvailabilitySerializer(many=True))
    def get_availability(self, model: Model) -> list[dict[str, Any]]:
        by_environment: dict[Environment, list[Deployment]] = {}
        for deployment in model.deployments.all():
            by_environment.setdefault(deployment.environment, []).append(deployment)
        return [
            {
                "environment": environment.slug,
                "state": model_state(found, self.context["signs"]).word,
                "deployments": len(found),
                "prices": _distinct(price_of(deployment) for deployment in found),
                "unpriced": any(price_of(deployment) is None for deployment in found),
            }
            for environment, found in sorted(
                by_environment.items(), key=lambda pair: pair[0].position
            )
        ]


def _distinct(prices: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for price in prices:
        if price is not None and price.units not in found:
            found.append(price.units)
    return found


def price_of(deployment: Deployment) -> Price | None:
    """The price in force, of a deployment that was read with `queries.prices_in_force`."""
    newest: list[Price] = deployment.in_force  # type: ignore[attr-defined]
    return newest[0] if newest and newest[0].units else None


class AliasSerializer(CreateOnly):
    environment = environment_field()
    model = model_field()
    create_only = ("environment", "name")

    class Meta:
        model = ModelAlias
        fields = ["id", "environment", "name", "model"]


class PriceSerializer(serializers.Serializer[Any]):
    """In a request, `book` looks the price book up and `none` makes it unpriced."""

    source = serializers.ChoiceField(  # type: ignore[assignment]  # a field, not its option
        choices=["book", "own", "none"]
    )
    units = UnitPricesField(required=False, help_text=UNITS_HELP)
    effective_from = serializers.DateTimeField(read_only=True)


class TestResultSerializer(serializers.Serializer[Any]):
    """What the last connection test found. Fields without a value are left out."""

    __test__ = False  # not a test case

    state = serializers.ChoiceField(choices=["running", "ok", "error"])
    at = serializers.DateTimeField()
    by = serializers.CharField(required=False)
    latency_ms = serializers.FloatField(required=False)
    input_tokens = serializers.IntegerField(required=False)
    output_tokens = serializers.IntegerField(required=False)
    cost = serializers.CharField(required=False, help_text="US dollars; absent when unpriced.")
    error_class = serializers.CharField(required=False)
    status = serializers.IntegerField(required=False)
    title = serializers.CharField(required=False)
    advice = serializers.CharField(required=False)
    message = serializers.CharField(required=False, help_text="The provider's own words.")


class DeploymentSerializer(CreateOnly):
    environment = environment_field()
    model = model_field()
    credential = serializers.PrimaryKeyRelatedField(queryset=Credential.objects.all())
    provider: "serializers.SlugRelatedField[Provider]" = serializers.SlugRelatedField(
        slug_field="slug", read_only=True
    )
    params = serializers.DictField(required=False)
    price = PriceSerializer(
        required=False,
        allow_null=True,
        help_text="Left out on creation: the price book's. Null: unpriced.",
    )
    last_test = TestResultSerializer(read_only=True, allow_null=True)
    create_only = ("environment",)

    class Meta:
        model = Deployment
        fields = [
            "id",
            "environment",
            "name",
            "model",
            "provider",
            "credential",
            "upstream_model",
            "params",
            "rpm",
            "tpm",
            "weight",
            "timeout_s",
            "stream_timeout_s",
            "region",
            "lane",
            "enabled",
            "price",
            "last_test",
            "created_at",
            "updated_at",
        ]

    def to_representation(self, instance: Deployment) -> dict[str, Any]:
        price = price_of(instance)
        instance.price = price  # type: ignore[attr-defined]
        shown: dict[str, Any] = super().to_representation(instance)
        return shown


class ChainSerializer(CreateOnly):
    environment = environment_field()
    model = model_field()
    targets = serializers.SlugRelatedField(
        slug_field="name",
        queryset=Model.objects.all(),
        many=True,
        allow_empty=False,
        help_text="Names of models, in the order in which they are tried.",
    )
    create_only = ("environment", "model", "kind")

    class Meta:
        model = FallbackChain
        fields = ["id", "environment", "model", "kind", "targets"]

    def to_representation(self, instance: FallbackChain) -> dict[str, Any]:
        return {
            "id": str(instance.pk),
            "environment": instance.environment.slug,
            "model": instance.model.name,
            "kind": instance.kind,
            "targets": [step.model.name for step in instance.steps.all()],
        }
