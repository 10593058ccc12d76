"""Forms of budgets, overrides, limits, blocks and customers."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Credential, Environment, Model
from gateway_admin.keys import queries
from gateway_admin.keys.budget_services import MAX_ROLLING_HOURS
from gateway_admin.keys.forms import DateInput, PersonField, SearchInput
from gateway_admin.keys.models import Budget, Customer, Scope
from gateway_admin.keys.subject_finder import find_subject
from gateway_admin.keys.subjects import EACH, EVERY, Subject
from gateway_admin.lib.errors import InvalidInput

ALL_MODELS = "All models together"
PERIODS = [
    ("day", "Each day"),
    ("week", "Each week"),
    ("month", "Each month"),
    ("quarter", "Each quarter"),
    ("year", "Each year"),
    ("rolling", "The last hours, at any moment"),
    ("lifetime", "Once, for ever"),
]
UNTIL = {
    "1": "For 1 day",
    "3": "For 3 days",
    "7": "For 7 days",
    "30": "For 30 days",
    "date": "To the end of a day…",
}


class PercentField(forms.CharField):
    """“80, 95” as a list of whole numbers."""

    def clean(self, value: Any) -> Any:
        text = super().clean(value) or ""
        parts = [part.strip(" %") for part in text.replace(";", ",").split(",") if part.strip(" %")]
        if not all(part.isdecimal() and part.isascii() for part in parts):
            raise forms.ValidationError("Whole percents, separated by commas: 80, 95.")
        return [int(part) for part in parts]


class SubjectForm(forms.Form):
    """Whose rule it is: a scope, and within it one subject or each."""

    SCOPES: tuple[str, ...] = tuple(Scope.values)
    scope = forms.ChoiceField(label="Of")
    team = forms.ChoiceField(required=False)
    user = PersonField(label="Person", required=False)
    key = forms.CharField(
        required=False,
        max_length=200,
        help_text="Its public id, sk-gw-… . Left empty: each key that has no own rule.",
        widget=forms.TextInput({"autocomplete": "off", "placeholder": "Each key"}),
    )
    customer = forms.CharField(
        required=False,
        max_length=200,
        help_text="The reference that requests carry as user. Left empty: each customer.",
        widget=forms.TextInput({"autocomplete": "off", "placeholder": "Each customer"}),
    )
    credential = forms.ChoiceField(required=False)
    model = forms.ChoiceField(required=False, help_text="Only what this model costs or answers.")

    def __init__(
        self,
        data: Any = None,
        *,
        person: User,
        environment: Environment,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data, initial=dict(initial or {}))
        self.person, self.environment = person, environment
        self.offer_scopes(self.SCOPES)
        teams = queries.visible_teams(person).values_list("slug", "name")
        self._choices("team", [("", EACH[Scope.TEAM]), *teams])
        user = self.fields["user"]
        assert isinstance(user, PersonField)
        people = User.objects.filter(is_active=True).order_by("name", "email")
        user.offer(people, nobody=EACH[Scope.USER])
        credentials = Credential.objects.filter(environment=environment)
        named = credentials.values_list("name", "name")
        self._choices("credential", [("", EACH[Scope.CREDENTIAL]), *named])
        models = Model.objects.values_list("name", "name")
        self._choices("model", [("", ALL_MODELS), *models])

    def offer_scopes(self, scopes: Sequence[str]) -> None:
        self._choices("scope", [(scope, Scope(scope).label) for scope in scopes])

    def _choices(self, name: str, choices: list[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        self.subject: Subject | None = None
        scope = values.get("scope", "")
        if scope and not self.errors:
            try:
                self.subject = find_subject(
                    actor=self.person,
                    environment=self.environment,
                    scope=scope,
                    name=self._named(scope, values),
                    field=scope,
                )
            except InvalidInput as error:
                self.add_error(error.field, error.message)
        return values

    @staticmethod
    def _named(scope: str, values: Mapping[str, Any]) -> str:
        given = values.get(scope)
        if isinstance(given, User):
            return given.email
        return given or EVERY


class AmountForm(forms.Form):
    """How much in which period; shared by new budgets and by changes."""

    limit_usd = forms.DecimalField(
        label="Limit, USD",
        min_value=Decimal("0.000001"),
        max_digits=16,
        decimal_places=6,
        help_text="Requests that could exceed it are refused before they reach a provider.",
        widget=forms.NumberInput({"step": "any", "inputmode": "decimal", "autocomplete": "off"}),
    )
    period = forms.ChoiceField(choices=PERIODS, initial="month")
    rolling_hours = forms.IntegerField(
        label="Hours", required=False, min_value=1, max_value=MAX_ROLLING_HOURS, initial=24
    )
    soft_percent = PercentField(
        label="Alert at, percent",
        required=False,
        initial="80",
        help_text="Thresholds that are noted and refuse nothing: 80, 95. Empty: none.",
        widget=forms.TextInput({"autocomplete": "off", "inputmode": "text"}),
    )
    name = forms.CharField(
        required=False,
        max_length=100,
        help_text="What refusals call it. Empty: it follows from subject and period.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )

    def amounts(self) -> dict[str, Any]:
        """Arguments of `budget_create` and `budget_update` beside whose it is."""
        values = self.cleaned_data
        return {
            "name": values["name"],
            "limit_usd": values["limit_usd"],
            "period": values["period"],
            "rolling_hours": values["rolling_hours"] if values["period"] == "rolling" else None,
            "soft_percent": values["soft_percent"],
        }


class BudgetForm(AmountForm, SubjectForm):
    field_order = [
        "scope",
        "team",
        "user",
        "key",
        "customer",
        "credential",
        "model",
        "limit_usd",
        "period",
        "rolling_hours",
        "soft_percent",
        "name",
    ]


class BudgetChangeForm(AmountForm):
    @classmethod
    def of(cls, budget: Budget, data: Any = None) -> "BudgetChangeForm":
        initial = {
            "limit_usd": budget.limit_usd.normalize(),
            "period": budget.period,
            "rolling_hours": budget.rolling_hours,
            "soft_percent": ", ".join(map(str, budget.soft_percent)),
            "name": budget.name,
        }
        return cls(data, initial={**initial, "limit_usd": f"{budget.limit_usd.normalize():f}"})


class OverrideForm(forms.Form):
    limit_usd = forms.DecimalField(
        label="Limit meanwhile, USD",
        min_value=Decimal("0.000001"),
        max_digits=16,
        decimal_places=6,
        widget=forms.NumberInput({"step": "any", "inputmode": "decimal", "autocomplete": "off"}),
    )
    until = forms.ChoiceField(label="How long", choices=list(UNTIL.items()), initial="7")
    until_day = forms.DateField(label="Last day", required=False, widget=DateInput())
    reason = forms.CharField(
        max_length=200,
        help_text="Stays in the budget's history.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("until") == "date" and not values.get("until_day"):
            self.add_error("until_day", "Choose the last day.")
        return values

    def fields_of_override(self) -> dict[str, Any]:
        values = self.cleaned_data
        return {
            "limit_usd": values["limit_usd"],
            "expires_at": self._expires_at(values["until"], values["until_day"]),
            "reason": values["reason"],
        }

    @staticmethod
    def _expires_at(choice: str, last_day: date | None) -> datetime:
        if choice == "date" and last_day is not None:
            return timezone.make_aware(datetime.combine(last_day + timedelta(days=1), time.min))
        return timezone.now() + timedelta(days=int(choice))


class LimitForm(SubjectForm):
    SCOPES = ("environment", "team", "user", "key", "customer")
    rpm = forms.IntegerField(label="Requests per minute", required=False, min_value=1)
    tpm = forms.IntegerField(
        label="Tokens per minute",
        required=False,
        min_value=1,
        help_text="Input and output together, reserved when a request comes in.",
    )
    parallel = forms.IntegerField(label="Parallel requests", required=False, min_value=1)

    def speeds(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("rpm", "tpm", "parallel")}


class NewBlockForm(forms.Form):
    SCOPES = (("team", "Team"), ("user", "Person"), ("customer", "Customer"))
    scope = forms.ChoiceField(label="Block a", choices=SCOPES)
    team = forms.ChoiceField(required=False)
    user = PersonField(label="Person", required=False)
    customer = forms.ChoiceField(required=False)
    where = forms.ChoiceField(initial="here")
    reason = forms.CharField(
        max_length=200,
        help_text="Callers and owners are shown it: say what they can do.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )

    def __init__(
        self,
        data: Any = None,
        *,
        person: User,
        environment: Environment,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data, initial=dict(initial or {}))
        self.environment = environment
        teams = queries.visible_teams(person).values_list("slug", "name")
        customers = Customer.objects.filter(environment=environment).order_by("reference")[:300]
        places = [("here", f"In {environment.name} only"), ("everywhere", "In every environment")]
        for name, choices in (
            ("team", [("", "Choose a team"), *teams]),
            ("customer", [("", "Choose a customer"), *((c.reference, str(c)) for c in customers)]),
            ("where", places),
        ):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = choices
        user = self.fields["user"]
        assert isinstance(user, PersonField)
        user.offer(User.objects.order_by("name", "email"))
        self.person = person

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        scope = values.get("scope", "")
        self.subject: Subject | None = None
        if scope and not values.get(scope) and scope not in self.errors:
            self.add_error(scope, "Choose whom to block.")
        if scope and not self.errors:
            given = values[scope]
            self.subject = find_subject(
                actor=self.person,
                environment=self.environment,
                scope=scope,
                name=given.email if isinstance(given, User) else given,
            )
        return values


class CustomerForm(forms.Form):
    reference = forms.CharField(
        max_length=200,
        strip=False,
        help_text="What requests carry as user, letter for letter.",
        widget=forms.TextInput({"autocomplete": "off", "spellcheck": "false"}),
    )
    name = forms.CharField(
        max_length=100,
        required=False,
        help_text="For people; empty: the reference.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )


class CustomerNameForm(forms.Form):
    name = forms.CharField(max_length=100, required=False)


class BudgetFilter(forms.Form):
    """Filters of the budget list; all optional, all in the address."""

    STATES = [
        ("", "All"),
        ("exhausted", "Exhausted"),
        ("warning", "Past a threshold"),
        ("override", "Overridden"),
    ]
    q = forms.CharField(
        label="Search", required=False, widget=SearchInput({"placeholder": "Name or subject"})
    )
    scope = forms.ChoiceField(
        required=False, choices=[("", "Any scope"), *Scope.choices, ("default", "Defaults")]
    )
    period = forms.ChoiceField(required=False, choices=[("", "Any period"), *Budget.Period.choices])
    state = forms.ChoiceField(required=False, choices=STATES, widget=forms.RadioSelect)


class LimitFilter(forms.Form):
    q = forms.CharField(
        label="Search", required=False, widget=SearchInput({"placeholder": "Subject or model"})
    )
    scope = forms.ChoiceField(required=False, choices=[("", "Any scope"), *Scope.choices])


class BlockFilter(LimitFilter):
    q = forms.CharField(
        label="Search", required=False, widget=SearchInput({"placeholder": "Subject or reason"})
    )


class SearchFilter(forms.Form):
    q = forms.CharField(
        label="Search", required=False, widget=SearchInput({"placeholder": "Reference or name"})
    )
