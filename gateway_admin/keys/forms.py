"""Forms of teams, members and virtual keys."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.keys import queries
from gateway_admin.keys.models import Membership, Team, VirtualKey
from gateway_admin.keys.services import MAX_CACHE_TTL_S, MAX_OUTPUT_TOKENS, AnswerRules

MAX_LISTED_PEOPLE = 300
NO_TEAM = "No team"
NOBODY = "Nobody: it belongs to the team"
DAYS = {"1": "1 day", "7": "7 days", "30": "30 days", "90": "90 days", "365": "1 year"}


class SearchInput(forms.TextInput):
    input_type = "search"


class DateInput(forms.DateInput):
    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


class TagsField(forms.CharField):
    """One `name=value` per line."""

    widget = forms.Textarea

    def clean(self, value: Any) -> Any:
        tags: dict[str, str] = {}
        for line in filter(None, (line.strip() for line in super().clean(value).splitlines())):
            name, separator, text = line.partition("=")
            if not separator:
                raise forms.ValidationError(f"“{line}” has no “=”. Write name=value, one per line.")
            tags[name.strip()] = text.strip()
        return tags


class PersonField(forms.CharField):
    """A person by e-mail: chosen from a list where it is short, else typed."""

    def offer(self, people: Any, *, nobody: str = "") -> None:
        self.people = people
        listed = list(people[: MAX_LISTED_PEOPLE + 1])
        if len(listed) > MAX_LISTED_PEOPLE:
            self.widget = forms.EmailInput({"autocomplete": "off", "placeholder": "E-mail"})
        else:
            named = [(person.email, _person_label(person)) for person in listed]
            self.widget = forms.Select(choices=[("", nobody or "Choose a person"), *named])
        self.widget.is_required = self.required

    def clean(self, value: Any) -> Any:
        email = super().clean(value)
        if not email:
            return None
        person = self.people.filter(email__iexact=email).first()
        if person is None:
            raise forms.ValidationError("Nobody of this e-mail can be chosen here.")
        return person


def _person_label(person: User) -> str:
    return f"{person.name} ({person.email})" if person.name else person.email


class TeamForm(forms.Form):
    name = forms.CharField(max_length=80, widget=forms.TextInput({"autocomplete": "off"}))
    description = forms.CharField(
        max_length=300, required=False, help_text="What the team builds, for whoever reads a bill."
    )


class NewTeamForm(TeamForm):
    slug = forms.SlugField(
        label="Short name",
        max_length=39,
        required=False,
        help_text="Stands in addresses, exports and tags, and cannot be changed. "
        "Left empty, it follows from the name.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )
    owner = PersonField(required=False, help_text="Manages members and keys.")
    field_order = ["name", "slug", "description", "owner"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        owner = self.fields["owner"]
        assert isinstance(owner, PersonField)
        owner.offer(User.objects.filter(is_active=True).order_by("name", "email"))


class MemberForm(forms.Form):
    user = PersonField(label="Person")
    role = forms.ChoiceField(
        choices=[
            (Membership.Role.MEMBER, "Member: own keys"),
            (Membership.Role.OWNER, "Owner: members and all keys of the team"),
        ],
        initial=Membership.Role.MEMBER,
    )

    def __init__(self, *args: Any, team: Team, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        user = self.fields["user"]
        assert isinstance(user, PersonField)
        outside = User.objects.filter(is_active=True).exclude(memberships__team=team)
        user.offer(outside.order_by("name", "email"))


class KeyForm(forms.Form):
    """A virtual key, new or (with `key`) as it is. Only what this person may choose is offered."""

    name = forms.CharField(
        max_length=100,
        help_text="What calls with it, for example “checkout-service”.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )
    in_environment = forms.ChoiceField(label="Environment")
    team = forms.ChoiceField(required=False, help_text="Whose spend it is.")
    owner = PersonField(required=False, help_text="Who answers for it.")
    models_mode = forms.ChoiceField(
        label="Allowed models",
        choices=[
            ("all", "All models of the environment, later ones too"),
            ("chosen", "Only these"),
        ],
        initial="all",
        widget=forms.RadioSelect,
    )
    allowed_models = forms.MultipleChoiceField(
        label="Allowed models", required=False, widget=forms.CheckboxSelectMultiple
    )
    max_output_tokens = forms.IntegerField(
        label="Output cap, tokens",
        required=False,
        min_value=1,
        max_value=MAX_OUTPUT_TOKENS,
        help_text="Given to requests that state none, and what a budget reserves for them. "
        "Empty: the environment's.",
    )
    cache = forms.ChoiceField(
        label="Response cache",
        required=False,
        choices=[
            (VirtualKey.Cache.OFF, "Off"),
            (VirtualKey.Cache.DETERMINISTIC, "Requests with temperature 0 or a seed"),
            (VirtualKey.Cache.ALL, "All requests"),
        ],
        initial=VirtualKey.Cache.OFF,
        help_text="Exact repetitions are answered without a provider, at no cost. Answers are "
        "shared within the team, and with nobody else.",
    )
    cache_ttl_s = forms.IntegerField(
        label="Answers are kept for, seconds",
        required=False,
        min_value=1,
        max_value=MAX_CACHE_TTL_S,
        help_text="Empty: as long as the environment says.",
    )
    expires = forms.ChoiceField(label="Expires", required=False)
    expires_on = forms.DateField(
        label="Last day", required=False, widget=DateInput(), help_text="The key works to its end."
    )
    tags = TagsField(
        required=False,
        help_text="One name=value per line, for example cost-centre=4711. They stand in every "
        "usage event of the key.",
        widget=forms.Textarea({"rows": 3, "spellcheck": "false", "placeholder": "name=value"}),
    )

    def __init__(
        self,
        data: Any = None,
        *,
        user: User,
        environment: Environment,
        key: VirtualKey | None = None,
        initial: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data, initial={**_initial(key, user, environment), **(initial or {})})
        self.key = key
        self._offer_environments(environment)
        self._offer_places(user)
        self._offer_models()
        after = [(days, f"In {name}") for days, name in DAYS.items()]
        kept = [("keep", f"Keep: {_day(key.expires_at)}")] if key and key.expires_at else []
        self._choices(
            "expires",
            [*kept, ("", "Never"), *after, ("date", "On a date…")],
        )

    def _offer_environments(self, environment: Environment) -> None:
        if self.key is not None:
            del self.fields["in_environment"]
            self.environment = self.key.environment
            return
        found = {item.slug: item for item in Environment.objects.all()}
        self._choices("in_environment", [(slug, item.name) for slug, item in found.items()])
        asked = self.data.get("in_environment") if self.is_bound else ""
        self.environment = found.get(str(asked), environment)

    def _offer_places(self, user: User) -> None:
        teams = list(queries.joined_teams(user))
        if self.key and self.key.team and self.key.team not in teams:
            teams.append(self.key.team)
        self._teams = {team.slug: team for team in teams}
        self._choices("team", [("", NO_TEAM), *((team.slug, team.name) for team in teams)])
        owner = self.fields["owner"]
        assert isinstance(owner, PersonField)
        people = queries.possible_owners(user)
        if self.key and self.key.owner:
            people = people | User.objects.filter(pk=self.key.owner.pk)
        owner.offer(people.distinct(), nobody=NOBODY)

    def _offer_models(self) -> None:
        names = queries.servable_models(self.environment)
        aliases = queries.servable_aliases(self.environment)
        known = (self.key.allowed_models if self.key else None) or []
        gone = sorted(set(known) - set(names) - set(aliases))
        self.model_groups = {"Models": names, "Aliases": aliases, "Not served any more": gone}
        self._choices("allowed_models", [(name, name) for name in [*names, *aliases, *gone]])

    def _choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def grouped_models(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Groups of model names for the template, with what is ticked."""
        chosen = set(self["allowed_models"].value() or [])
        return [
            (title, [{"name": name, "checked": name in chosen} for name in names])
            for title, names in self.model_groups.items()
            if names
        ]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("models_mode") == "chosen":
            self._require("allowed_models", "Choose at least one model, or allow all.")
        if values.get("expires") == "date":
            self._require("expires_on", "Choose the last day.")
        return values

    def _require(self, name: str, message: str) -> None:
        if name not in self.errors and not self.cleaned_data.get(name):
            self.add_error(name, message)

    def fields_of_key(self) -> dict[str, Any]:
        """Arguments of `services.key_create` and `key_update` beside actor and environment."""
        values = self.cleaned_data
        chosen = values["models_mode"] == "chosen"
        return {
            "name": values["name"],
            "owner": values["owner"],
            "team": self._teams.get(values["team"]),
            "allowed_models": values["allowed_models"] if chosen else None,
            "expires_at": self._expires_at(values["expires"], values["expires_on"]),
            "tags": values["tags"],
            "answers": AnswerRules(
                cache=values["cache"] or VirtualKey.Cache.OFF,
                cache_ttl_s=values["cache_ttl_s"],
                max_output_tokens=values["max_output_tokens"],
            ),
        }

    def _expires_at(self, choice: str, last_day: date | None) -> datetime | None:
        if choice == "keep" and self.key:
            return self.key.expires_at
        if choice == "date" and last_day:
            return timezone.make_aware(datetime.combine(last_day + timedelta(days=1), time.min))
        return timezone.now() + timedelta(days=int(choice)) if choice else None


def _initial(key: VirtualKey | None, user: User, environment: Environment) -> dict[str, Any]:
    if key is None:
        return {"in_environment": environment.slug, "owner": user.email}
    return {
        "name": key.name,
        "team": key.team.slug if key.team else "",
        "owner": key.owner.email if key.owner else "",
        "models_mode": "all" if key.allowed_models is None else "chosen",
        "allowed_models": key.allowed_models or [],
        "expires": "keep" if key.expires_at else "",
        "tags": "\n".join(f"{name}={value}" for name, value in key.tags.items()),
        "cache": key.cache,
        "cache_ttl_s": key.cache_ttl_s,
        "max_output_tokens": key.max_output_tokens,
    }


def _day(at: datetime) -> str:
    local = timezone.localtime(at)
    return f"{local.day} {local:%b %Y, %H:%M}"


class BlockForm(forms.Form):
    reason = forms.CharField(
        max_length=200,
        help_text="Callers are shown it: say what they can do.",
        widget=forms.TextInput({"autocomplete": "off"}),
    )


class KeyFilter(forms.Form):
    """Filters of the key list; all optional, all in the address."""

    STATES = [
        ("", "In use"),
        ("active", "Active"),
        ("blocked", "Blocked"),
        ("expired", "Expired"),
        ("revoked", "Revoked"),
        ("all", "All"),
    ]
    q = forms.CharField(
        label="Search",
        required=False,
        widget=SearchInput({"placeholder": "Name, public id or owner"}),
    )
    team = forms.ChoiceField(required=False)
    model = forms.ChoiceField(required=False)
    used = forms.ChoiceField(
        label="Last used",
        required=False,
        choices=[
            ("", "Any time"),
            ("never", "Never"),
            ("30", "Not for 30 days"),
            ("90", "Not for 90 days"),
        ],
    )
    state = forms.ChoiceField(required=False, choices=STATES, widget=forms.RadioSelect)
    sort = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, data: Any, *, user: User, environment: Environment) -> None:
        super().__init__(data)
        teams = queries.visible_teams(user).values_list("slug", "name")
        names = [*queries.servable_models(environment), *queries.servable_aliases(environment)]
        self.fields["team"] = forms.ChoiceField(
            required=False, choices=[("", "Any team"), ("none", NO_TEAM), *teams]
        )
        self.fields["model"] = forms.ChoiceField(
            required=False, choices=[("", "Any model"), *((name, name) for name in names)]
        )
        self.order_fields(["q", "team", "model", "used", "state", "sort"])
