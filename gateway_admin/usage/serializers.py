"""What the usage endpoints take and give."""

from datetime import timedelta
from typing import Any

from rest_framework import serializers

from gateway_admin.usage.models import UsageEvent
from gateway_admin.usage.queries import GROUPS
from proxy.contract import ERROR_CLASSES, EVENT_STATUSES

LONGEST_DAYS = 800
LONGEST_HOURLY_DAYS = 8


class UsageFilterSerializer(serializers.Serializer[Any]):
    """Filters that both endpoints know; a developer sees own usage whatever is asked."""

    environment = serializers.SlugField(required=False, help_text="Slug; without it all.")
    team = serializers.UUIDField(required=False)
    key = serializers.UUIDField(required=False)
    user = serializers.IntegerField(required=False, min_value=1)
    model = serializers.CharField(required=False)
    requested_model = serializers.CharField(required=False)
    provider = serializers.UUIDField(required=False)
    deployment = serializers.UUIDField(required=False)
    status = serializers.ChoiceField(choices=EVENT_STATUSES, required=False)
    error_class = serializers.ChoiceField(choices=ERROR_CLASSES, required=False)


class EventFilterSerializer(UsageFilterSerializer):
    customer = serializers.CharField(required=False)
    streaming = serializers.BooleanField(required=False, allow_null=True, default=None)
    fallback = serializers.BooleanField(required=False, allow_null=True, default=None)
    unpriced = serializers.BooleanField(required=False, allow_null=True, default=None)
    lane = serializers.ChoiceField(
        choices=("direct", "litellm"),
        required=False,
        help_text="Who called the provider. Requests that called none have no lane.",
    )

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python."""
        times = {
            "from": serializers.DateTimeField(required=False, help_text="First moment."),
            "to": serializers.DateTimeField(required=False, help_text="Moment after the last."),
        }
        return {**super().get_fields(), **times}


class SummaryFilterSerializer(UsageFilterSerializer):
    group_by = serializers.ChoiceField(choices=tuple(GROUPS), required=False)
    interval = serializers.ChoiceField(choices=("day", "hour"), required=False)

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python."""
        days = {
            "from": serializers.DateField(
                required=False, help_text="First day, in the organisation's time zone."
            ),
            "to": serializers.DateField(
                required=False, help_text="Last day, included. Default: today."
            ),
        }
        return {**super().get_fields(), **days}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        first, last = attrs.get("from"), attrs.get("to")
        if first and last and first > last:
            raise serializers.ValidationError({"from": "Lies after `to`."})
        hourly = attrs.get("interval") == "hour"
        longest = timedelta(days=LONGEST_HOURLY_DAYS if hourly else LONGEST_DAYS)
        if first and last and last - first >= longest:
            raise serializers.ValidationError({"from": f"More than {longest.days} days."})
        return attrs


class UsageEventSerializer(serializers.ModelSerializer[UsageEvent]):
    """A request with its attempts. Amounts are exact decimals as strings, in US dollars."""

    cost = serializers.SerializerMethodField(help_text="US dollars; null: unpriced.")
    saved_cost = serializers.SerializerMethodField(
        help_text="US dollars that a cached answer would have cost; null: not from the cache."
    )
    admission = serializers.CharField(
        help_text="How budgets counted it: shared, local (by one worker alone), none."
    )

    lane = serializers.CharField(
        help_text="Who called the provider that answered: `direct` or `litellm`."
    )
    lane_reason = serializers.CharField(
        help_text="Why LiteLLM called it, for example `provider` or `parameter:logit_bias`; else "
        "empty."
    )

    class Meta:
        model = UsageEvent
        exclude = ("series_id", "counter_epoch", "charged")

    def get_cost(self, event: UsageEvent) -> str | None:
        return None if event.cost is None else f"{event.cost:f}"

    def get_saved_cost(self, event: UsageEvent) -> str | None:
        return None if event.saved_cost is None else f"{event.saved_cost:f}"


class TotalsSerializer(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    errors = serializers.IntegerField(  # type: ignore[assignment]
        help_text="Failed at the provider or in the gateway."
    )
    refused = serializers.IntegerField(help_text="Refused at the edge; nothing was called.")
    aborted = serializers.IntegerField(help_text="The client closed the connection.")
    abandoned = serializers.IntegerField(
        help_text="The gateway's process ended with the request; booked at its reservation's input."
    )
    input_tokens = serializers.IntegerField(help_text="Cached reads and writes included.")
    output_tokens = serializers.IntegerField(help_text="Reasoning included.")
    cache_read_tokens = serializers.IntegerField()
    cache_write_tokens = serializers.IntegerField()
    reasoning_tokens = serializers.IntegerField()
    cost = serializers.SerializerMethodField(help_text="US dollars, exact.")
    unpriced = serializers.IntegerField(help_text="Requests without a known price.")
    estimated = serializers.IntegerField(help_text="Requests whose tokens we counted.")
    fallbacks = serializers.IntegerField()
    streams = serializers.IntegerField()
    cache_hits = serializers.IntegerField(help_text="Answered from the response cache.")
    saved_cost = serializers.SerializerMethodField(
        help_text="US dollars that cached answers would have cost, exact."
    )

    def get_cost(self, totals: Any) -> str:
        return f"{totals.cost:f}"

    def get_saved_cost(self, totals: Any) -> str:
        return f"{totals.saved_cost:f}"


class SummaryRowSerializer(serializers.Serializer[Any]):
    at = serializers.CharField(allow_null=True, help_text="Day or hour; null without interval.")
    group = serializers.CharField(allow_null=True, help_text="Id or name; null: none of it.")
    name = serializers.CharField(allow_null=True)
    totals = TotalsSerializer()


class SummarySerializer(serializers.Serializer[Any]):
    """Sums over the time asked for. Days are cut in `time_zone`; hours are UTC."""

    time_zone = serializers.CharField()
    group_by = serializers.CharField(allow_null=True)
    interval = serializers.CharField(allow_null=True)
    total = TotalsSerializer()
    results = SummaryRowSerializer(many=True)

    def get_fields(self) -> dict[str, Any]:
        """`from` is a word of Python."""
        days = {"from": serializers.DateField(), "to": serializers.DateField()}
        return {**days, **super().get_fields()}
