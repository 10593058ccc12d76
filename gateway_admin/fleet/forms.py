"""Forms of publishing, rolling back and ordering breakers."""

from typing import Any

from django import forms

from gateway_admin.catalog.forms.base import SearchForm
from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.breakers import REASON_LENGTH
from gateway_admin.fleet.models import BreakerOrder
from gateway_admin.fleet.services import COMMENT_LENGTH


class PublishForm(forms.Form):
    comment = forms.CharField(
        label="Comment",
        max_length=COMMENT_LENGTH,
        required=False,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "placeholder": "Why, for whoever reads the history"}
        ),
    )
    # What the person has read; a draft that changed since is shown again, not published.
    digest = forms.CharField(widget=forms.HiddenInput)


class RollbackForm(forms.Form):
    comment = forms.CharField(
        label="Comment",
        max_length=COMMENT_LENGTH,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    confirm = forms.CharField(
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}
        ),
    )

    def __init__(self, data: Any = None, *, environment: Environment) -> None:
        super().__init__(data)
        self.environment = environment
        self.fields["confirm"].label = f"Type {environment.slug} to confirm"

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"].strip()
        if typed != self.environment.slug:
            raise forms.ValidationError(f"Type {self.environment.slug}.")
        return typed


class BreakerOrderForm(forms.Form):
    action = forms.ChoiceField(choices=BreakerOrder.Action.choices)
    reason = forms.CharField(max_length=REASON_LENGTH)


class BreakerFilter(SearchForm):
    state = forms.ChoiceField(
        required=False,
        label="State",
        choices=[
            ("", "Any state"),
            ("open", "Open"),
            ("half_open", "Half-open"),
            ("closed", "Closed"),
        ],
    )
