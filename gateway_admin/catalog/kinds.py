"""What each kind of provider needs, and how it is written for LiteLLM 1.106.

Everything that depends on the kind is data of `KINDS`: forms draw themselves from it, the
services check against it, the fleet composes LiteLLM's parameters with it.

Addresses (`api_base` and the like) may point anywhere, inside the network as well: that is
how Ollama and self-hosted endpoints are reached. Only administrators can set them, and only
the proxy and the connection test call them; no address ever comes from a request.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway_admin.catalog.models import Credential, Deployment, Model, Provider
from gateway_admin.lib.errors import InvalidInput


@dataclass(frozen=True)
class Field:
    """One parameter of a credential, under LiteLLM's own name."""

    name: str
    label: str
    help: str = ""
    required: bool = False
    placeholder: str = ""
    default: str = ""
    is_url: bool = False
    rows: int = 1  # lines of the text area; 1: a plain input


@dataclass(frozen=True)
class Kind:
    """A kind of provider. `together` names secret fields that are set all or none."""

    key: str
    label: str
    tagline: str
    litellm_provider: str  # "" for `other`: the provider's row names it
    secrets: tuple[Field, ...]
    params: tuple[Field, ...] = ()
    together: frozenset[str] = frozenset()
    example: str = ""  # a provider's model, as a placeholder
    model_help: str = "The provider's own name for the model."
    region_param: str = ""  # LiteLLM's parameter that a deployment's region sets
    free_params: bool = False  # parameters beyond `params` are allowed
    prefixes: Mapping[str, str] = field(default_factory=dict)  # mode -> LiteLLM provider

    @property
    def needs_secret(self) -> bool:
        return any(secret.required for secret in self.secrets)


def _base(placeholder: str, *, required: bool = False, default: str = "") -> Field:
    return Field(
        "api_base",
        "Base URL",
        "Only for a proxy or a compatible endpoint; leave empty for the provider's own."
        if not required
        else "Where the provider is reached from the proxy.",
        required=required,
        placeholder=placeholder,
        default=default,
        is_url=True,
    )


_OPENAI = Kind(
    key="openai",
    label="OpenAI",
    tagline="GPT, o-series, embeddings, images, speech — and any endpoint that speaks its format.",
    litellm_provider="openai",
    secrets=(Field("api_key", "API key", required=True, placeholder="sk-…"),),
    params=(
        _base("https://api.openai.com/v1"),
        Field(
            "organization",
            "Organisation",
            "For accounts that belong to several.",
            placeholder="org-…",
        ),
    ),
    example="gpt-4o",
)

_ANTHROPIC = Kind(
    key="anthropic",
    label="Anthropic",
    tagline="Claude, by Anthropic's own API.",
    litellm_provider="anthropic",
    secrets=(Field("api_key", "API key", required=True, placeholder="sk-ant-…"),),
    params=(_base("https://api.anthropic.com"),),
    example="claude-sonnet-4-5",
)

_GEMINI = Kind(
    key="gemini",
    label="Google Gemini",
    tagline="Gemini, by Google AI Studio's API.",
    litellm_provider="gemini",
    secrets=(Field("api_key", "API key", required=True, placeholder="AIza…"),),
    params=(_base("https://generativelanguage.googleapis.com/v1beta"),),
    example="gemini-2.5-flash",
)

_AZURE = Kind(
    key="azure",
    label="Azure OpenAI",
    tagline="OpenAI's models in your own Azure resource.",
    litellm_provider="azure",
    secrets=(Field("api_key", "API key", "Key 1 or key 2 of the resource.", required=True),),
    params=(
        _base("https://my-resource.openai.azure.com", required=True),
        Field(
            "api_version",
            "API version",
            "Azure's date of the API.",
            required=True,
            placeholder="2024-10-21",
            default="2024-10-21",
        ),
    ),
    example="gpt-4o",
    model_help="The deployment's name in Azure, not the model's.",
)

_BEDROCK = Kind(
    key="bedrock",
    label="AWS Bedrock",
    tagline="Claude, Llama, Nova and others in your AWS account.",
    litellm_provider="bedrock",
    secrets=(
        Field(
            "aws_access_key_id",
            "Access key ID",
            "Leave all three empty to use the AWS identity of the machine the proxy runs on.",
            placeholder="AKIA…",
        ),
        Field("aws_secret_access_key", "Secret access key"),
        Field("aws_session_token", "Session token", "Only with temporary credentials."),
    ),
    params=(
        Field(
            "aws_region_name",
            "Region",
            "A deployment may name another one.",
            required=True,
            placeholder="us-east-1",
            default="us-east-1",
        ),
        Field(
            "aws_bedrock_runtime_endpoint",
            "Endpoint",
            "Only for a private (VPC) endpoint.",
            placeholder="https://bedrock-runtime.us-east-1.amazonaws.com",
            is_url=True,
        ),
        Field(
            "aws_role_name",
            "Role to assume",
            "ARN of a role that this identity may assume.",
            placeholder="arn:aws:iam::123456789012:role/gateway",
        ),
    ),
    together=frozenset({"aws_access_key_id", "aws_secret_access_key"}),
    example="anthropic.claude-3-5-sonnet-20240620-v1:0",
    model_help="Model ID, inference profile ID or its ARN.",
    region_param="aws_region_name",
)

_OLLAMA = Kind(
    key="ollama",
    label="Ollama",
    tagline="Open models on your own machines.",
    litellm_provider="ollama",
    secrets=(
        Field("api_key", "API key", "Only when a reverse proxy in front of Ollama asks for one."),
    ),
    params=(_base("http://ollama.internal:11434", required=True),),
    example="llama3.1:8b",
    model_help="As `ollama list` shows it.",
    prefixes={"chat": "ollama_chat"},
)

_OTHER = Kind(
    key="other",
    label="Other",
    tagline="Mistral, Groq, Vertex AI, Cohere, vLLM … any provider LiteLLM knows.",
    litellm_provider="",
    secrets=(
        Field("api_key", "API key", "Leave empty if the endpoint asks for none."),
        Field(
            "further",
            "Further secret parameters",
            "A JSON object of LiteLLM parameters that are secret, for example vertex_credentials.",
            placeholder='{"vertex_credentials": "…"}',
            rows=3,
        ),
    ),
    params=(_base("https://api.example.com/v1"),),
    example="mistral-large-latest",
    region_param="",
    free_params=True,
)

KINDS: dict[str, Kind] = {
    kind.key: kind for kind in (_OPENAI, _ANTHROPIC, _GEMINI, _AZURE, _BEDROCK, _OLLAMA, _OTHER)
}

_URL_PARAMS = frozenset(
    {"api_base", "base_url", "aws_bedrock_runtime_endpoint", "aws_sts_endpoint", "s3_endpoint_url"}
)

# What the product decides itself: a deployment's own fields, never its further parameters.
_OWN_FIELDS = {
    "model": "provider's model",
    "custom_llm_provider": "provider",
    "litellm_credential_name": "credential",
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "weight": "weight",
    "timeout": "time-out",
    "stream_timeout": "time-out until the first byte",
    "mock_response": "",
    "use_in_pass_through": "",
    "configurable_clientside_auth_params": "",
}

_SECRET_KEY = re.compile(
    r"api[_-]?key|secret|token|passw|credential|authorization|private[_-]?key|bearer|cookie",
    re.IGNORECASE,
)
_NOT_SECRET_KEY = re.compile(r"(tokens|_per_token|_token_limit|tokenizer)$", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"^\s*(sk-[\w-]{8,}|Bearer\s+\S+|Basic\s+\S{8,}|AKIA[A-Z0-9]{12,})")
_REFERENCE = re.compile(r"^\s*(os\.environ/|oidc/)", re.IGNORECASE)


def kind_of(provider: Provider) -> Kind:
    return KINDS[provider.kind]


def litellm_model(*, provider: Provider, upstream_model: str, mode: str) -> str:
    """LiteLLM's name of the provider's model, prefix included: "azure/gpt-4o"."""
    prefix = kind_of(provider).prefixes.get(mode) or provider.litellm_provider
    return f"{prefix}/{upstream_model}"


def credential_params(credential: Credential) -> dict[str, Any]:
    """The credential's parameters for LiteLLM; nothing secret."""
    return {name: value for name, value in credential.params.items() if value not in ("", None)}


def deployment_params(deployment: Deployment) -> dict[str, Any]:
    """The deployment's own parameters for LiteLLM; they win over its credential's."""
    params = dict(deployment.params)
    region_param = kind_of(deployment.provider).region_param
    if deployment.provider.litellm_provider.startswith("vertex_ai"):
        region_param = "vertex_location"
    if region_param and deployment.region:
        params.setdefault(region_param, deployment.region)
    return params


def litellm_params(deployment: Deployment) -> dict[str, Any]:
    """All of a deployment's LiteLLM parameters except the secret ones, `model` included."""
    model: Model = deployment.model
    return {
        **credential_params(deployment.credential),
        **deployment_params(deployment),
        "model": litellm_model(
            provider=deployment.provider,
            upstream_model=deployment.upstream_model,
            mode=model.mode,
        ),
    }


def clean_url(value: str, *, name: str) -> str:
    """The address without a trailing slash, or InvalidInput saying what is wrong with it."""
    text = value.strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"This is not an address: {error}.", field=name) from error
    if parts.scheme not in {"http", "https"} or not host or re.search(r"\s", text):
        raise InvalidInput("Enter an address that begins with http:// or https://.", field=name)
    if parts.username or parts.password:
        raise InvalidInput(
            "Leave user name and password out of the address; secrets have their own field.",
            field=name,
        )
    if parts.query or parts.fragment:
        raise InvalidInput("Leave everything from “?” or “#” on out of the address.", field=name)
    return text.rstrip("/")


def clean_credential_params(kind: Kind, params: Mapping[str, Any]) -> dict[str, Any]:
    """A credential's parameters as they are stored: known, complete, and nothing secret."""
    known = {field.name: field for field in kind.params}
    unknown = sorted(set(params) - set(known))
    if unknown and not kind.free_params:
        raise InvalidInput(
            f"{kind.label} credentials have no parameter {unknown[0]!r}. "
            f"Known are {', '.join(known)}.",
            field="params",
        )
    clean: dict[str, Any] = {}
    for name, spec in known.items():
        value = params.get(name)
        if not isinstance(value, str | None):
            raise InvalidInput("Enter text.", field=name)
        text = (value or "").strip()
        if not text and spec.required:
            raise InvalidInput(f"{kind.label} needs this.", field=name)
        if text:
            _refuse_reference(text, name)
            clean[name] = clean_url(text, name=name) if spec.is_url else text
    extra = clean_free_params({name: params[name] for name in unknown}, where="the secret field")
    return {**clean, **extra}


def clean_free_params(params: Any, *, where: str = "the credential") -> dict[str, Any]:
    """Further LiteLLM parameters: a JSON object that holds nothing secret.

    `where` names the place in which secrets belong.
    """
    if not isinstance(params, dict):
        raise InvalidInput('Enter a JSON object, for example {"seed": 1}.', field="params")
    for name, own in _OWN_FIELDS.items():
        if name in params:
            advice = f": use the field “{own}”" if own else ""
            raise InvalidInput(f"{name!r} cannot be set here{advice}.", field="params")
    for path, value in _leaves(params):
        key = path[-1] if path else ""
        secret_key = any(
            _SECRET_KEY.search(part) and not _NOT_SECRET_KEY.search(part) for part in path
        )
        if secret_key or (isinstance(value, str) and _SECRET_VALUE.match(value)):
            raise InvalidInput(
                f"“{'.'.join(path)}” looks like a secret. Put it into {where}: "
                "parameters are shown on pages and in revisions.",
                field="params",
            )
        if isinstance(value, str):
            _refuse_reference(value, "params")
            if key in _URL_PARAMS:
                clean_url(value, name="params")
    return dict(params)


def clean_secret(kind: Kind, secret: Mapping[str, Any]) -> dict[str, str]:
    """The secret fields as they are stored; {} when none was given.

    For `other`, the JSON object in `further` is merged in. Errors never repeat a value.
    """
    values: dict[str, Any] = dict(secret)
    if kind.free_params:
        values.update(_further(values.pop("further", None)))
    known = {spec.name for spec in kind.secrets}
    for name, value in values.items():
        if name not in known and not kind.free_params:
            raise InvalidInput(
                f"{kind.label} has no secret {name!r}. Known are {', '.join(sorted(known))}.",
                field="secret",
            )
        if not isinstance(value, str | None):
            raise InvalidInput("A secret is text.", field=name)
    clean = {name: value.strip() for name, value in values.items() if value and value.strip()}
    for name, value in clean.items():
        _refuse_reference(value, name)
    _check_complete(kind, clean)
    return clean


def _check_complete(kind: Kind, clean: Mapping[str, str]) -> None:
    for spec in kind.secrets:
        if spec.required and spec.name not in clean:
            raise InvalidInput(f"{kind.label} needs this.", field=spec.name)
    missing = sorted(kind.together - set(clean))
    if missing and clean:
        label = next(spec.label for spec in kind.secrets if spec.name == missing[0])
        raise InvalidInput(f"{label} is needed too.", field=missing[0])


def _further(value: Any) -> dict[str, Any]:
    import json

    if value in (None, ""):
        return {}
    try:
        parsed = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InvalidInput("This is not a JSON object.", field="further") from error
    if not isinstance(parsed, dict) or "further" in parsed:
        raise InvalidInput("Enter a JSON object.", field="further")
    return {
        name: item if isinstance(item, str) else json.dumps(item) for name, item in parsed.items()
    }


def _refuse_reference(value: str, name: str) -> None:
    """LiteLLM would replace such a value by a variable or file of the proxy's machine."""
    if _REFERENCE.match(value):
        raise InvalidInput(
            "References such as os.environ/NAME are not resolved here. Enter the value itself.",
            field=name,
        )


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar below a JSON value, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value
