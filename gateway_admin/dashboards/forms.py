"""Filters of the pages. They live in the URL; a value that does not read is said and ignored."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.http import HttpRequest, QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Deployment, Environment, Model, Provider
from gateway_admin.dashboards.periods import WORDS, DayRange, day_range
from gateway_admin.keys.queries import visible_keys, visible_teams
from gateway_admin.usage.event_queries import EventFilters
from gateway_admin.usage.lanes import LANE_NAMES
from gateway_admin.usage.queries import Filters
from proxy.contract import ERROR_CLASSES, EVENT_STATUSES

GROUP_WORDS = {"team": "Team", "model": "Model", "provider": "Provider", "key": "Key"}
Choices = list[tuple[str, str]]


class LongSelect(forms.Select):
    """A drop-down that stays quick with a thousand options."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        chosen = "" if value is None else str(value)
        options = format_html_join(
            "",
            '<option value="{}"{}>{}</option>',
            (
                (key, SafeString(" selected") if str(key) == chosen else "", label)
                for key, label in self.choices
            ),
        )
        pairs = {**self.attrs, **(attrs or {}), "name": name}
        attributes = format_html_join("", ' {}="{}"', pairs.items())
        return format_html("<select{}>{}</select>", attributes, options)


class DateInput(forms.DateInput):
    input_type = "date"

    def format_value(self, value: Any) -> str | None:
        return value.isoformat() if isinstance(value, date) else value


class MomentInput(DateInput):
    """A date; with a time of day where the address gives one."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        if len(context["widget"]["value"] or "") > len("2026-01-01"):
            context["widget"]["type"] = "datetime-local"
        return context


class RangeForm(forms.Form):
    """What all pages filter by: a preset or dates.

    `custom` is no value of the address: it is the choice that shows the dates, which speak for
    themselves.
    """

    range_presets: tuple[str, ...] = ("7d", "30d", "90d")
    range_default = "30d"

    range = forms.ChoiceField(label="Time", required=False, widget=forms.RadioSelect)
    since = forms.DateField(label="From", required=False, widget=DateInput)
    until = forms.DateField(label="To", required=False, widget=DateInput)

    def __init__(self, request: HttpRequest, environment: Environment, user: User) -> None:
        data = request.GET.copy()
        data.setdefault("range", self.range_default)
        if data.get("since") or data.get("until"):
            data["range"] = "custom"
        super().__init__(data)
        self.environment, self.user = environment, user
        field = self.fields["range"]
        presets = (*self.range_presets, "custom")
        field.choices = [(name, WORDS[name]) for name in presets]  # type: ignore[attr-defined]
        field.initial = self.range_default
        self.is_valid()

    def value(self, name: str) -> Any:
        """The cleaned value, None where it was not given or does not read."""
        return self.cleaned_data.get(name) or None

    @property
    def faults(self) -> str:
        """What was wrong with the address, in words."""
        labels = [str(self.fields[name].label) for name in self.errors if name in self.fields]
        return f"Not understood and left out: {', '.join(labels)}." if labels else ""

    @property
    def preset(self) -> str:
        """The chosen preset; the default one where dates were asked for but none given."""
        preset: str = self.value("range") or self.range_default
        return self.range_default if preset == "custom" else preset

    @property
    def shown(self) -> DayRange:
        """The days that a preset reaches, for the date fields."""
        return self.days(timezone.localdate())

    def days(self, today: date) -> DayRange:
        return day_range(
            preset=self.preset,
            since=self.value("since"),
            until=self.value("until"),
            today=today,
        )

    def set_choices(self, name: str, any_label: str, choices: Iterable[tuple[Any, str]]) -> None:
        pairs = [("", any_label), *((str(value), label) for value, label in choices)]
        self.fields[name].choices = pairs  # type: ignore[attr-defined]

    def is_narrow(self, names: Iterable[str]) -> bool:
        return any(self.value(name) for name in names)


def select(label: str) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, required=False, widget=LongSelect)


class CostForm(RangeForm):
    range_presets = ("7d", "30d", "90d", "month", "last-month")

    group = forms.ChoiceField(
        label="By", required=False, widget=forms.RadioSelect, choices=list(GROUP_WORDS.items())
    )
    team = select("Team")
    model = select("Model")
    provider = select("Provider")
    key = select("Key")
    narrowing = ("team", "model", "provider", "key")

    field_order = ("group", "range", "since", "until", "team", "model", "provider", "key")

    def __init__(self, request: HttpRequest, environment: Environment, user: User) -> None:
        super().__init__(request, environment, user)
        self.fields["group"].initial = "team"
        self.data = _with_default(self.data, "group", "team")
        self.set_choices("team", "All teams", team_choices(user))
        self.set_choices("model", "All models", model_choices())
        self.set_choices("provider", "All providers", provider_choices())
        self.set_choices("key", "All keys", key_choices(user, environment))
        self.full_clean()

    @property
    def group_by(self) -> str:
        return self.value("group") or "team"

    def filters(self) -> Filters:
        return Filters(
            environment=self.environment.pk,
            team=_uuid(self.value("team")),
            model=self.value("model"),
            provider=_uuid(self.value("provider")),
            key=_uuid(self.value("key")),
        )


class LatencyForm(RangeForm):
    range_presets = ("24h", "7d", "30d", "90d")
    range_default = "24h"

    group = forms.ChoiceField(
        label="By",
        required=False,
        widget=forms.RadioSelect,
        choices=[("model", "Model"), ("deployment", "Deployment")],
    )
    model = select("Model")
    deployment = select("Deployment")
    provider = select("Provider")
    team = select("Team")
    narrowing = ("model", "deployment", "provider", "team")

    field_order = ("group", "range", "since", "until", "model", "deployment", "provider", "team")

    def __init__(self, request: HttpRequest, environment: Environment, user: User) -> None:
        super().__init__(request, environment, user)
        self.fields["group"].initial = "model"
        self.data = _with_default(self.data, "group", "model")
        self.set_choices("model", "All models", model_choices())
        self.set_choices("deployment", "All deployments", deployment_choices(environment))
        self.set_choices("provider", "All providers", provider_choices())
        self.set_choices("team", "All teams", team_choices(user))
        self.full_clean()

    @property
    def group_by(self) -> str:
        return self.value("group") or "model"

    @property
    def group_label(self) -> str:
        return {"model": "Model", "deployment": "Deployment"}[self.group_by]

    def filters(self) -> Filters:
        return Filters(
            environment=self.environment.pk,
            team=_uuid(self.value("team")),
            model=self.value("model"),
            provider=_uuid(self.value("provider")),
            deployment=_uuid(self.value("deployment")),
        )


class MomentField(forms.Field):
    """A date (the whole day) or a date with time, in the current zone."""

    def to_python(self, value: Any) -> date | datetime | None:
        if not value:
            return None
        try:
            moment = parse_datetime(value) if len(value) > 10 else None
            found = moment or parse_date(value)
        except ValueError:
            found = None
        if found is None:
            raise forms.ValidationError("Not a date.")
        if isinstance(found, datetime) and timezone.is_naive(found):
            return timezone.make_aware(found)
        return found


YES_NO = [("", "Any"), ("yes", "Yes"), ("no", "No")]


class RequestsForm(RangeForm):
    range_presets = ("1h", "24h", "7d", "30d")
    range_default = "7d"

    since = MomentField(label="From", required=False, widget=MomentInput)  # type: ignore[assignment]
    until = MomentField(label="To", required=False, widget=MomentInput)  # type: ignore[assignment]
    status = select("Status")
    error = select("Error")
    model = select("Model")
    deployment = select("Deployment")
    provider = select("Provider")
    team = select("Team")
    key = select("Key")
    customer = forms.CharField(label="Customer", required=False, max_length=200)
    streaming = forms.ChoiceField(label="Streamed", required=False, choices=YES_NO)
    fallback = forms.ChoiceField(label="Fallback", required=False, choices=YES_NO)
    cached = forms.ChoiceField(label="From cache", required=False, choices=YES_NO)
    lane = forms.ChoiceField(
        label="Lane", required=False, choices=[("", "Any"), *LANE_NAMES.items()]
    )
    unpriced = forms.ChoiceField(
        label="Unpriced", required=False, choices=[("", "Any"), ("yes", "Only")]
    )
    narrowing = (
        "status", "error", "model", "deployment", "provider", "team", "key", "customer",
        "streaming", "fallback", "cached", "lane", "unpriced",
    )  # fmt: skip

    def __init__(self, request: HttpRequest, environment: Environment, user: User) -> None:
        super().__init__(request, environment, user)
        words = [(name, name.replace("_", " ")) for name in ERROR_CLASSES]
        self.set_choices("status", "Any status", [(name, name) for name in EVENT_STATUSES])
        self.set_choices("error", "Any error", words)
        self.set_choices("model", "All models", model_choices())
        self.set_choices("deployment", "All deployments", deployment_choices(environment))
        self.set_choices("provider", "All providers", provider_choices())
        self.set_choices("team", "All teams", team_choices(user))
        self.set_choices("key", "All keys", key_choices(user, environment))
        self.full_clean()

    def bounds(self, now: datetime) -> tuple[datetime, datetime | None]:
        """From when to when, UTC; no end: up to now and beyond."""
        since, until = self.value("since"), self.value("until")
        if since or until:
            end = _moment(until, timedelta(days=1)) if until else None
            start = _moment(since, timedelta()) if since else (end or now) - timedelta(days=30)
            return start, end
        hours = {"1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24}
        return now - timedelta(hours=hours[self.preset]), None

    def filters(self, now: datetime) -> EventFilters:
        start, end = self.bounds(now)
        flag = {"yes": True, "no": False}
        return EventFilters(
            environment=self.environment.pk,
            start=start,
            end=end,
            status=self.value("status") or "",
            error_class=self.value("error") or "",
            model=self.value("model") or "",
            deployment=_uuid(self.value("deployment")),
            provider=_uuid(self.value("provider")),
            key=_uuid(self.value("key")),
            team=_uuid(self.value("team")),
            customer=self.value("customer") or "",
            streaming=flag.get(self.value("streaming") or ""),
            fallback=flag.get(self.value("fallback") or ""),
            cached=flag.get(self.value("cached") or ""),
            lane=self.value("lane") or "",
            unpriced=flag.get(self.value("unpriced") or ""),
        )


def _with_default(data: Mapping[str, Any], name: str, value: str) -> QueryDict:
    assert isinstance(data, QueryDict)
    copy = data.copy()
    copy.setdefault(name, value)
    return copy


def _moment(value: date | datetime, whole_day: timedelta) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    start = datetime.combine(value + whole_day, time.min, timezone.get_current_timezone())
    return start.astimezone(UTC)


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def team_choices(user: User) -> Choices:
    return [(str(pk), name) for pk, name in visible_teams(user).values_list("pk", "name")]


def key_choices(user: User, environment: Environment) -> Choices:
    keys = visible_keys(user).filter(environment=environment).order_by("name")
    return [(str(pk), name) for pk, name in keys.values_list("pk", "name")]


def model_choices() -> Choices:
    return [(name, name) for name in Model.objects.order_by("name").values_list("name", flat=True)]


def provider_choices() -> Choices:
    return [(str(pk), name) for pk, name in Provider.objects.values_list("pk", "name")]


def deployment_choices(environment: Environment) -> Choices:
    found = Deployment.objects.filter(environment=environment).order_by("name")
    return [(str(pk), name) for pk, name in found.values_list("pk", "name")]
