"""Filters of the Cache page."""

from django import forms
from django.http import HttpRequest

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.dashboards.forms import (
    RangeForm,
    _uuid,
    _with_default,
    key_choices,
    model_choices,
    select,
    team_choices,
)
from gateway_admin.usage.queries import Filters

CACHE_GROUPS = {"team": "Team", "model": "Model", "key": "Key"}


class CacheForm(RangeForm):
    """By team, model or key; narrowed to one of each."""

    group = forms.ChoiceField(
        label="By", required=False, widget=forms.RadioSelect, choices=list(CACHE_GROUPS.items())
    )
    team = select("Team")
    model = select("Model")
    key = select("Key")
    narrowing = ("team", "model", "key")

    field_order = ("group", "range", "since", "until", "team", "model", "key")

    def __init__(self, request: HttpRequest, environment: Environment, user: User) -> None:
        super().__init__(request, environment, user)
        self.fields["group"].initial = "team"
        self.data = _with_default(self.data, "group", "team")
        self.set_choices("team", "All teams", team_choices(user))
        self.set_choices("model", "All models", model_choices())
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
            key=_uuid(self.value("key")),
        )
