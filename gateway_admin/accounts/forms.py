"""Forms of people, tokens, the organisation and the audit list."""

from calendar import day_name, month_name
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.utils import timezone

from gateway_admin.accounts.models import ApiToken, Organisation, User
from gateway_admin.accounts.roles import Role, role_of

ROLES = [
    (Role.ADMIN.value, "Administrator: everything"),
    (Role.FINANCE.value, "Finance: all spend, budgets and customers, no prompts"),
    (Role.DEVELOPER.value, "Developer: keys and usage of their own teams"),
]
ADVICE = "At least 10 characters, not a common password. A sentence is easy to remember."


class PasswordForm(forms.Form):
    """Name and password of somebody whom a link has proved."""

    name = forms.CharField(max_length=100, widget=forms.TextInput({"autocomplete": "name"}))
    password = forms.CharField(
        strip=False,
        min_length=10,
        max_length=200,
        help_text=ADVICE,
        widget=forms.PasswordInput({"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if password := values.get("password"):
            person = User(email=values.get("email", ""), name=values.get("name", ""))
            try:
                validate_password(password, person)
            except ValidationError as error:
                self.add_error("password", error)
        return values


class FirstAdministratorForm(PasswordForm):
    email = forms.EmailField(
        label="E-mail",
        help_text="You sign in with it.",
        widget=forms.EmailInput({"autocomplete": "username"}),
    )
    field_order = ["name", "email", "password"]


class PersonForm(forms.Form):
    name = forms.CharField(max_length=100, widget=forms.TextInput({"autocomplete": "off"}))
    role = forms.ChoiceField(choices=ROLES, widget=forms.RadioSelect)

    @classmethod
    def of(cls, user: User, data: Any = None) -> "PersonForm":
        return cls(data, initial={"name": user.name, "role": role_of(user) or Role.DEVELOPER})


class NewPersonForm(PersonForm):
    email = forms.EmailField(label="E-mail", widget=forms.EmailInput({"autocomplete": "off"}))
    field_order = ["name", "email", "role"]


class PeopleFilter(forms.Form):
    q = forms.CharField(
        label="Search",
        required=False,
        widget=forms.TextInput({"type": "search", "placeholder": "Name or e-mail"}),
    )
    role = forms.ChoiceField(
        required=False,
        choices=[("", "Any role"), *((role.value, role.value.title()) for role in Role)],
    )
    state = forms.ChoiceField(
        required=False,
        choices=[("", "Active"), ("inactive", "Deactivated"), ("all", "All")],
        widget=forms.RadioSelect,
    )


class TokenForm(forms.Form):
    EXPIRIES = [("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("", "Never")]

    name = forms.CharField(
        max_length=100,
        help_text="What uses it, for example “Terraform”.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )
    scope = forms.ChoiceField(
        choices=[
            (ApiToken.Scope.READ, "Read only"),
            (ApiToken.Scope.WRITE, "Read and write, within your role"),
        ],
        initial=ApiToken.Scope.READ,
        widget=forms.RadioSelect,
    )
    expires = forms.ChoiceField(
        label="Expires after", choices=EXPIRIES, initial="90", required=False
    )

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["expires"]
        return timezone.now() + timedelta(days=int(days)) if days else None


class OrganisationForm(forms.Form):
    name = forms.CharField(max_length=100)
    time_zone = forms.ChoiceField(
        choices=[(name, name.replace("_", " ")) for name in sorted(available_timezones())],
        help_text="Pages write times and cut days in this zone. Usage is kept in UTC.",
    )
    week_start = forms.TypedChoiceField(
        label="Weeks begin on",
        choices=list(enumerate(day_name, start=1)),
        coerce=int,
        help_text="For weekly budgets.",
    )
    fiscal_year_month = forms.TypedChoiceField(
        label="The fiscal year begins in",
        choices=[(number, month_name[number]) for number in range(1, 13)],
        coerce=int,
        help_text="For quarterly and yearly budgets. Another calendar holds at once: what was "
        "spent in the running periods is counted anew from the ledger.",
    )

    @classmethod
    def of(cls, organisation: Organisation, data: Any = None) -> "OrganisationForm":
        return cls(data, initial={name: getattr(organisation, name) for name in cls.base_fields})


class AuditFilter(forms.Form):
    """Filters of the audit list; all optional, all in the address."""

    person = forms.CharField(
        required=False, widget=forms.TextInput({"type": "search", "placeholder": "Name or e-mail"})
    )
    action = forms.ChoiceField(required=False)
    target = forms.CharField(
        required=False,
        widget=forms.TextInput({"type": "search", "placeholder": "What was changed"}),
    )
    since = forms.DateField(
        label="From", required=False, widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )
    until = forms.DateField(
        label="To", required=False, widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )
    target_id = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, actions: list[str]) -> None:
        super().__init__(data)
        named = [(action, action) for action in actions]
        self.fields["action"] = forms.ChoiceField(
            required=False, choices=[("", "Any action"), *named]
        )

    def moment(self, name: str) -> datetime | None:
        """Start of `since` or end of `until` in the current zone."""
        day = self.cleaned_data.get(name)
        if day is None:
            return None
        if name == "until":
            day += timedelta(days=1)
        return timezone.make_aware(datetime.combine(day, time.min))
