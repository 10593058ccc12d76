"""Forms of providers, credentials, models and aliases."""

from typing import TYPE_CHECKING, Any

from django import forms

from gateway_admin.catalog import queries
from gateway_admin.catalog.forms.base import (
    JsonObjectField,
    SearchForm,
    SecretInput,
    SecretTextarea,
    ServiceForm,
    lane_field,
)
from gateway_admin.catalog.kinds import Field, Kind, kind_of
from gateway_admin.catalog.models import (
    Credential,
    Environment,
    Model,
    ModelAlias,
    Provider,
    model_name_validator,
)

if TYPE_CHECKING:  # generic for the type checker only
    _ModelChoiceField = forms.ModelChoiceField[Model]
else:
    _ModelChoiceField = forms.ModelChoiceField


class ProviderForm(ServiceForm):
    name = forms.CharField(max_length=60)
    litellm_provider = forms.CharField(
        label="LiteLLM's name of the provider",
        max_length=60,
        help_text="What stands before the “/” in LiteLLM's model names, for example mistral, "
        "groq, vertex_ai or hosted_vllm.",
        widget=forms.TextInput(
            attrs={"placeholder": "mistral", "list": "litellm-providers", "spellcheck": "false"}
        ),
    )

    def __init__(
        self, *args: Any, kind: Kind, provider: Provider | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].initial = provider.name if provider else ""
        if kind.litellm_provider or provider:
            del self.fields["litellm_provider"]
        if kind.litellm_provider and not provider:
            taken = Provider.objects.filter(name=kind.label).exists()
            self.fields["name"].initial = "" if taken else kind.label


def _plain_field(spec: Field) -> forms.CharField:
    attrs = {"placeholder": spec.placeholder, "spellcheck": "false", "autocomplete": "off"}
    if spec.is_url:
        attrs["inputmode"] = "url"
    return forms.CharField(
        label=spec.label,
        help_text=spec.help,
        required=spec.required,
        initial=spec.default,
        max_length=500,
        widget=forms.TextInput(attrs=attrs),
    )


def _secret_field(spec: Field) -> forms.CharField:
    widget = SecretInput() if spec.rows == 1 else SecretTextarea(spec.rows)
    if spec.placeholder:
        widget.attrs["placeholder"] = spec.placeholder
    return forms.CharField(
        label=spec.label, help_text=spec.help, required=spec.required, widget=widget
    )


class CredentialForm(ServiceForm):
    """Name and parameters; with `with_secret` (a new credential) its secret fields too."""

    name = forms.CharField(
        max_length=80, help_text="How people here call it, for example openai-main."
    )

    def __init__(
        self,
        *args: Any,
        provider: Provider,
        credential: Credential | None = None,
        with_secret: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind_of(provider)
        stored = dict(credential.params) if credential else {}
        self.secret_names: list[str] = []
        if with_secret:
            for spec in self.kind.secrets:
                self.fields[spec.name] = _secret_field(spec)
                self.secret_names.append(spec.name)
        self.param_names = [spec.name for spec in self.kind.params]
        for spec in self.kind.params:
            self.fields[spec.name] = _plain_field(spec)
            if credential:
                self.fields[spec.name].initial = stored.pop(spec.name, "")
        if self.kind.free_params:
            self.fields["params"] = JsonObjectField(
                label="Further LiteLLM parameters",
                help_text="A JSON object, for example "
                '{"vertex_project": "my-project", "vertex_location": "europe-west4"}.',
                initial=stored,
            )
        if credential:
            self.fields["name"].initial = credential.name

    def params(self) -> dict[str, Any]:
        further = self.cleaned_data.get("params") or {}
        return {**further, **{name: self.cleaned_data[name] for name in self.param_names}}

    def secret(self) -> dict[str, str]:
        return {name: self.cleaned_data[name] for name in self.secret_names}

    def secret_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.secret_names]

    def param_fields(self) -> list[forms.BoundField]:
        names = [*self.param_names, *(["params"] if self.kind.free_params else [])]
        return [self[name] for name in names]


class SecretForm(ServiceForm):
    """All secret fields of a credential, to be replaced together."""

    def __init__(self, *args: Any, kind: Kind, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for spec in kind.secrets:
            self.fields[spec.name] = _secret_field(spec)


class ModelForm(ServiceForm):
    name = forms.CharField(
        max_length=120,
        validators=[model_name_validator],
        help_text="What clients ask for.",
        widget=forms.TextInput(attrs={"placeholder": "gpt-4o", "spellcheck": "false"}),
    )
    mode = forms.ChoiceField(
        choices=Model.Mode.choices, help_text="Which kind of request it answers."
    )
    description = forms.CharField(
        max_length=300,
        required=False,
        help_text="What it is good for, in a sentence for developers.",
    )
    context_window = forms.IntegerField(
        label="Context window, tokens", required=False, min_value=1, max_value=100_000_000
    )
    max_output_tokens = forms.IntegerField(
        label="Longest answer, tokens", required=False, min_value=1, max_value=100_000_000
    )
    cache = forms.BooleanField(
        label="Answers may be kept",
        required=False,
        initial=True,
        help_text="In the response cache, for keys that ask for it. Switch off for models whose "
        "answers must always be fresh.",
    )

    lane = lane_field(
        "Choose LiteLLM always to keep all deployments of this model there, in every environment."
    )

    def __init__(self, *args: Any, model: Model | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if model is not None:
            for name, field in self.fields.items():
                field.initial = getattr(model, name)


class ModelChoice(_ModelChoiceField):
    """Models that have a deployment in an environment come first, in their own group."""

    def __init__(self, environment: Environment, **kwargs: Any) -> None:
        kwargs.setdefault("to_field_name", "name")
        super().__init__(queryset=Model.objects.all(), **kwargs)
        rows = queries.models_in(environment)
        here = [(model.name, model.name) for model in rows if queries.is_here(model)]
        rest = [(model.name, model.name) for model in rows if not queries.is_here(model)]
        groups: list[Any] = [("", "Choose a model")]
        groups += [(f"In {environment}", here)] if here else []
        groups += [("Not deployed here", rest)] if rest else []
        self.choices = groups


class AliasForm(ServiceForm):
    name = forms.CharField(
        max_length=120,
        validators=[model_name_validator],
        help_text="What applications ask for, for example default or fast.",
        widget=forms.TextInput(attrs={"placeholder": "default", "spellcheck": "false"}),
    )

    def __init__(
        self,
        *args: Any,
        environment: Environment,
        alias: ModelAlias | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"] = ModelChoice(
            environment, help_text="Which model answers behind this name."
        )
        if alias is not None:
            del self.fields["name"]
            self.fields["model"].initial = alias.model.name


class ModelFilter(SearchForm):
    mode = forms.ChoiceField(
        required=False, choices=[("", "All modes"), *Model.Mode.choices], label="Mode"
    )
    served = forms.ChoiceField(
        required=False,
        label="Deployed",
        choices=[("", "All models"), ("yes", "Deployed here"), ("no", "Not deployed here")],
    )


class ProviderFilterMixin(forms.Form):
    provider = forms.ChoiceField(required=False, label="Provider")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["provider"]
        assert isinstance(choice, forms.ChoiceField)
        choice.choices = [
            ("", "All providers"),
            *Provider.objects.values_list("slug", "name"),
        ]


class CredentialFilter(SearchForm, ProviderFilterMixin):
    field_order = ["q", "provider", "state"]
    state = forms.ChoiceField(
        required=False,
        label="State",
        choices=[
            ("", "Any state"),
            ("enabled", "Enabled"),
            ("disabled", "Disabled"),
            ("refused", "Refused by the provider"),
        ],
    )


class DeploymentFilter(SearchForm, ProviderFilterMixin):
    field_order = ["q", "provider", "state"]
    state = forms.ChoiceField(
        required=False,
        label="State",
        choices=[
            ("", "Any state"),
            ("enabled", "Enabled"),
            ("disabled", "Disabled"),
            ("kept_out", "Kept out by its breaker"),
            ("failed", "Last test failed"),
            ("untested", "Not tested"),
        ],
    )
