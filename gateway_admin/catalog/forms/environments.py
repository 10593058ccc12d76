"""The form of an environment: what applies where nothing more particular is said."""

from typing import Any

from django import forms

from gateway_admin.catalog import queries
from gateway_admin.catalog.forms.base import ServiceForm
from gateway_admin.catalog.models import Environment, slug_validator

LONGEST_S = 6_000
KIBIBYTE = 1024  # the form asks for KiB, the row holds bytes


def _seconds(label: str, default: float | None, *, least: float = 0.1, **more: Any) -> Any:
    return forms.FloatField(
        label=label, min_value=least, max_value=LONGEST_S, initial=default, **more
    )


def _count(label: str, default: int | None, most: int, **more: Any) -> forms.IntegerField:
    return forms.IntegerField(label=label, min_value=1, max_value=most, initial=default, **more)


class EnvironmentForm(ServiceForm):
    name = forms.CharField(max_length=60)
    slug = forms.CharField(
        max_length=39,
        validators=[slug_validator],
        help_text="In addresses and file names; cannot be changed later.",
    )
    colour = forms.ChoiceField(
        choices=Environment.Colour.choices,
        help_text="The band over every page of this environment.",
    )
    default_model = forms.ChoiceField(
        label="Default model",
        required=False,
        help_text="Answers requests that name no model.",
    )
    default_output_tokens = _count(
        "Longest answer, tokens",
        None,
        100_000_000,
        required=False,
        help_text="For requests that state no limit of their own; this much is reserved for "
        "them. Left empty: the model's longest answer.",
    )
    fallback_enabled = forms.BooleanField(label="Use fallback chains", required=False, initial=True)
    timeout_s = _seconds("Time-out of an attempt, seconds", 600)
    stream_timeout_s = _seconds("Time-out until a stream's first byte, seconds", 60)
    total_timeout_s = _seconds(
        "Time-out of all attempts together, seconds",
        600,
        help_text="Retries and fallbacks included; of a stream, until its first byte. Wins over "
        "the time-outs of attempts.",
    )
    num_retries = forms.IntegerField(
        label="Retries on the same model",
        min_value=0,
        max_value=10,
        initial=1,
        help_text="Before a fallback chain is followed.",
    )
    retry_backoff_s = _seconds(
        "Wait before the first retry, seconds",
        0.5,
        least=0,
        help_text="Doubles with each retry. A provider's own wish (Retry-After) comes first.",
    )
    breaker_enabled = forms.BooleanField(
        label="Keep failing deployments out",
        required=False,
        initial=True,
        help_text="Requests then go to the model's other deployments, or along its chain.",
    )
    breaker_consecutive_failures = _count("Opens after failures in a row", 5, 1_000)
    breaker_failure_percent = _count("Or when failures reach, percent", 50, 100)
    breaker_minimum_calls = _count("of at least so many calls", 20, 100_000)
    breaker_window_s = _count("within, seconds", 60, 3_600)
    breaker_slow_call_s = _seconds(
        "A call is a failure when slower than, seconds",
        None,
        required=False,
        help_text="Left empty: slowness alone is never a failure.",
    )
    breaker_open_s = _count("Stays open, seconds", 30, LONGEST_S, help_text="Then it is half-open.")
    breaker_half_open_permits = _count(
        "Trial calls at once while half-open",
        3,
        100,
        help_text="By all workers of all replicas together.",
    )
    breaker_close_after_successes = _count("Closes after successes", 3, 100)
    breaker_all_open = forms.ChoiceField(
        label="When every deployment of a request is kept out",
        choices=Environment.AllOpen.choices,
        initial=Environment.AllOpen.REFUSE,
        widget=forms.RadioSelect,
    )
    cache_enabled = forms.BooleanField(
        label="Keep answers",
        required=False,
        initial=True,
        help_text="For keys that ask for it. Keys of different owners never share an answer.",
    )
    cache_ttl_s = _count("Kept for, seconds", 3_600, 30 * 86_400)
    cache_max_entry_kib = _count("Longest answer kept, KiB", 1_024, 64 * 1_024)
    on_counter_outage = forms.ChoiceField(
        label="While Redis does not answer",
        choices=Environment.CounterOutage.choices,
        initial=Environment.CounterOutage.SHARE,
        widget=forms.RadioSelect,
        help_text="Serving may overspend a budget by what was not yet counted when Redis stopped. "
        "Refusing answers with status 503 until it is back.",
    )
    auto_publish = forms.BooleanField(
        label="Publish every edit by itself",
        required=False,
        help_text="Without it, edits are a draft until somebody publishes them.",
    )

    def __init__(self, *args: Any, environment: Environment | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = queries.names_in(environment) if environment else []
        current = environment.default_model if environment else ""
        if current and current not in names:
            names = [current, *names]
        choice = self.fields["default_model"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [("", "None: such requests are refused"), *((n, n) for n in names)]
        if environment is not None:
            del self.fields["slug"]
            for name, field in self.fields.items():
                field.initial = _initial(environment, name)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if "cache_max_entry_kib" in cleaned:
            cleaned["cache_max_entry_bytes"] = cleaned.pop("cache_max_entry_kib") * KIBIBYTE
        return cleaned


def _initial(environment: Environment, name: str) -> Any:
    if name == "cache_max_entry_kib":
        return max(environment.cache_max_entry_bytes // KIBIBYTE, 1)
    value = getattr(environment, name)
    return int(value) if isinstance(value, float) and value.is_integer() else value
