"""Shapes of budgets, limits, blocks, customers and balances in the REST API."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from gateway_admin.keys.balances import Balance
from gateway_admin.keys.headroom import Gauge, Headroom
from gateway_admin.keys.models import Block, Budget, BudgetOverride, Customer, RateLimit, Scope
from gateway_admin.keys.subject_finder import name_of
from gateway_admin.keys.subjects import subject_of

SUBJECT_HELP = (
    "A team's short name, a person's e-mail, a key's id or public id, a customer's reference, "
    'a credential\'s name; "*": each without its own rule. Left out for the environment itself.'
)
USD: dict[str, Any] = {"max_digits": 20, "decimal_places": 9}


class BalanceSerializer(serializers.Serializer[Any]):
    """US dollars as decimal strings; null: unknown."""

    scope = serializers.ChoiceField(Scope.choices, source="subject.scope")
    subject = serializers.SerializerMethodField(help_text=SUBJECT_HELP)
    budget = serializers.UUIDField(source="budget.pk")
    name = serializers.CharField(source="budget.name")
    model = serializers.CharField(source="budget.model", help_text="Empty: all models.")
    state = serializers.ChoiceField(["ok", "warning", "exhausted", "unknown"])
    limit_usd = serializers.DecimalField(**USD, source="limit", help_text="The one in force.")
    spent_usd = serializers.DecimalField(**USD, source="spent", allow_null=True)
    held_usd = serializers.DecimalField(**USD, source="held", allow_null=True)
    remaining_usd = serializers.DecimalField(**USD, source="remaining", allow_null=True)
    forecast_usd = serializers.SerializerMethodField(
        help_text="At the period's end, along a straight line; null: too early, or no end."
    )
    resets_at = serializers.DateTimeField(allow_null=True)
    as_of = serializers.DateTimeField(
        allow_null=True, help_text="When it was stored; null: live from the counters."
    )

    def get_subject(self, balance: Balance) -> str:
        return name_of(balance.subject)

    def get_forecast_usd(self, balance: Balance) -> str | None:
        return None if balance.forecast is None else f"{balance.forecast:.6f}"


class OverrideSerializer(serializers.ModelSerializer[BudgetOverride]):
    granted_by = serializers.EmailField(source="granted_by.email", default=None, allow_null=True)

    class Meta:
        model = BudgetOverride
        fields = [
            "id",
            "limit_usd",
            "expires_at",
            "reason",
            "granted_by",
            "granted_at",
            "revoked_at",
        ]


class OverrideWriteSerializer(serializers.Serializer[Any]):
    limit_usd = serializers.DecimalField(max_digits=16, decimal_places=6)
    expires_at = serializers.DateTimeField()
    reason = serializers.CharField(max_length=200)


class _RuleSerializer(serializers.ModelSerializer[Any]):
    environment = serializers.SlugField(source="environment.slug")
    subject = serializers.SerializerMethodField(help_text=SUBJECT_HELP)

    def get_subject(self, rule: Budget | RateLimit) -> str:
        return name_of(subject_of(rule))


class BudgetSerializer(_RuleSerializer):
    balance = serializers.SerializerMethodField(
        help_text="Null for defaults: each subject has its own, see `balances`."
    )

    class Meta:
        model = Budget
        fields = [
            "id",
            "name",
            "environment",
            "scope",
            "subject",
            "model",
            "limit_usd",
            "period",
            "rolling_hours",
            "soft_percent",
            "balance",
            "created_at",
        ]

    @extend_schema_field(BalanceSerializer(allow_null=True))
    def get_balance(self, budget: Budget) -> Any:
        found = self.context["balances"].get(budget.pk)
        return None if found is None else BalanceSerializer(found).data


class BudgetUpdateSerializer(serializers.Serializer[Any]):
    """What may be changed; what is left out stays."""

    name = serializers.CharField(
        max_length=100, required=False, allow_blank=True, help_text="What refusals call it."
    )
    limit_usd = serializers.DecimalField(max_digits=16, decimal_places=6)
    period = serializers.ChoiceField(Budget.Period.choices)
    rolling_hours = serializers.IntegerField(
        required=False, allow_null=True, help_text="For the period rolling: 1 to 8760."
    )
    soft_percent = serializers.ListField(
        child=serializers.IntegerField(),
        required=False,
        help_text="Thresholds that are noted and refuse nothing, 1 to 100.",
    )


class BudgetCreateSerializer(BudgetUpdateSerializer):
    environment = serializers.SlugField()
    scope = serializers.ChoiceField(Scope.choices)
    subject = serializers.CharField(required=False, allow_blank=True, help_text=SUBJECT_HELP)
    model = serializers.CharField(
        required=False, allow_blank=True, help_text="Only what this model costs; empty: all."
    )


class GaugeSerializer(serializers.Serializer[Gauge]):
    kind = serializers.ChoiceField(["rpm", "tpm", "parallel"])
    limit = serializers.IntegerField()
    used = serializers.IntegerField(allow_null=True, help_text="Null: unknown.")
    left = serializers.IntegerField(allow_null=True)


class LimitSerializer(_RuleSerializer):
    headroom = serializers.SerializerMethodField(
        help_text="Use of the last 60 s; empty for defaults."
    )

    class Meta:
        model = RateLimit
        fields = [
            "id",
            "environment",
            "scope",
            "subject",
            "model",
            "rpm",
            "tpm",
            "parallel",
            "headroom",
            "created_at",
        ]

    @extend_schema_field(GaugeSerializer(many=True))
    def get_headroom(self, limit: RateLimit) -> Any:
        found = self.context["headroom"].get(limit.pk)
        return [] if found is None else GaugeSerializer(found.gauges, many=True).data


class LimitWriteSerializer(serializers.Serializer[Any]):
    environment = serializers.SlugField()
    scope = serializers.ChoiceField(Scope.choices, help_text="Any but credential.")
    subject = serializers.CharField(required=False, allow_blank=True, help_text=SUBJECT_HELP)
    model = serializers.CharField(
        required=False, allow_blank=True, help_text="Only calls of this model; empty: all."
    )
    rpm = serializers.IntegerField(
        required=False, allow_null=True, help_text="Requests in any 60 s; null: not limited."
    )
    tpm = serializers.IntegerField(
        required=False, allow_null=True, help_text="Tokens in any 60 s; null: not limited."
    )
    parallel = serializers.IntegerField(
        required=False, allow_null=True, help_text="Requests at once; null: not limited."
    )


class HeadroomSerializer(serializers.Serializer[Headroom]):
    scope = serializers.ChoiceField(Scope.choices, source="subject.scope")
    subject = serializers.SerializerMethodField(help_text=SUBJECT_HELP)
    limit = serializers.UUIDField(source="limit.pk")
    model = serializers.CharField(source="limit.model", help_text="Empty: all models.")
    gauges = GaugeSerializer(many=True)

    def get_subject(self, headroom: Headroom) -> str:
        return name_of(headroom.subject)


class StandingSerializer(serializers.Serializer[Any]):
    """Everything that can refuse a call: own rules and those above."""

    balances = BalanceSerializer(many=True)
    limits = HeadroomSerializer(many=True)
    blocked = serializers.ListField(
        child=serializers.CharField(), help_text="Reasons of blocks; empty: not blocked."
    )


class BlockSerializer(serializers.ModelSerializer[Block]):
    environment = serializers.SlugField(
        source="environment.slug", default=None, allow_null=True, help_text="Null: everywhere."
    )
    subject = serializers.SerializerMethodField(help_text=SUBJECT_HELP)
    created_by = serializers.EmailField(source="created_by.email", default=None, allow_null=True)

    class Meta:
        model = Block
        fields = ["id", "scope", "subject", "environment", "reason", "created_by", "created_at"]

    def get_subject(self, block: Block) -> str:
        target = block.target
        names = ("slug", "email", "reference")
        return next(str(getattr(target, name)) for name in names if hasattr(target, name))


class BlockWriteSerializer(serializers.Serializer[Any]):
    scope = serializers.ChoiceField(Scope.choices, help_text="team, user or customer.")
    subject = serializers.CharField(help_text="Short name, e-mail or reference.")
    environment = serializers.SlugField(
        required=False, allow_null=True, help_text="Null or left out: everywhere (not customers)."
    )
    reason = serializers.CharField(max_length=200, help_text="Callers are shown it.")


class CustomerSerializer(serializers.ModelSerializer[Customer]):
    environment = serializers.SlugField(source="environment.slug")

    class Meta:
        model = Customer
        fields = ["id", "environment", "reference", "name", "created_at"]


class CustomerCreateSerializer(serializers.Serializer[Any]):
    environment = serializers.SlugField()
    reference = serializers.CharField(
        max_length=200, trim_whitespace=False, help_text="The `user` field of requests."
    )
    name = serializers.CharField(max_length=100, required=False, allow_blank=True)


class CustomerUpdateSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100, allow_blank=True)


class PurgeSerializer(serializers.Serializer[Any]):
    environment = serializers.SlugField()
