"""What all forms of supply share: errors of services at their fields, secrets never echoed."""

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

from django import forms
from django.http import QueryDict

from gateway_admin.catalog.models import Lane
from gateway_admin.lib.errors import ServiceError

Result = TypeVar("Result")


class ServiceForm(forms.Form):
    """A form whose errors may come from a service."""

    def save_with(self, call: Callable[[], Result]) -> Result | None:
        """Call the service; on a ServiceError put its message at the field and return None."""
        try:
            return call()
        except ServiceError as error:
            self.add_error(error.field if error.field in self.fields else None, error.message)
            return None

    def given(self, name: str) -> str:
        """What a field holds now, as text. Unlike `self[name]` it does not fix its help yet."""
        if self.is_bound:
            return str(self.data.get(self.add_prefix(name)) or "")
        return str(self.get_initial_for_field(self.fields[name], name) or "")

    def replace_data(self, values: dict[str, str]) -> None:
        """Draw the form with other values than were sent."""
        data = cast(QueryDict, self.data).copy()
        for name, value in values.items():
            data[name] = value
        self.data = data


class SecretInput(forms.PasswordInput):
    """A password field that is never filled in again, whatever was sent."""

    def __init__(self) -> None:
        super().__init__(
            attrs={"autocomplete": "new-password", "spellcheck": "false"}, render_value=False
        )


class SecretTextarea(forms.Textarea):
    """Several lines of secret; never filled in again."""

    def __init__(self, rows: int) -> None:
        super().__init__(attrs={"autocomplete": "off", "spellcheck": "false", "rows": rows})

    def format_value(self, value: Any) -> str:
        return ""


class JsonObjectField(forms.CharField):
    """A JSON object as text; what was typed stays as it was typed."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("required", False)
        super().__init__(
            widget=forms.Textarea(
                attrs={"rows": 4, "spellcheck": "false", "class": "gw-code", "placeholder": "{ }"}
            ),
            **kwargs,
        )

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return {}
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise forms.ValidationError(f"This is not JSON: {error}.") from error
        if not isinstance(parsed, dict):
            raise forms.ValidationError('Enter a JSON object, for example {"seed": 1}.')
        return parsed

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, indent=2) if value else ""
        return value


def lane_field(exception: str) -> forms.ChoiceField:
    """Direct when possible, or always LiteLLM; `exception` says when to choose the latter."""
    return forms.ChoiceField(
        label="Lane",
        choices=Lane.choices,
        initial=Lane.AUTO,
        widget=forms.RadioSelect,
        help_text="Where the provider speaks OpenAI's format, the gateway calls it directly, which "
        "adds the least delay. Whatever has to be translated, and every attempt after a failure, "
        f"goes through LiteLLM by itself. {exception}",
    )


class SearchForm(forms.Form):
    """The search field every list has."""

    q = forms.CharField(
        label="Search",
        required=False,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Name …"}),
    )

    def value(self, name: str) -> str:
        """The filter's value; "" when it is not set or not valid."""
        self.is_valid()
        return str(self.cleaned_data.get(name) or "")
