"""A believable environment to look at; used by the browser tests."""

from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.catalog import services
from gateway_admin.catalog.credentials import credentials_seen
from gateway_admin.catalog.models import Credential, Deployment, Environment, Model
from gateway_admin.catalog.onboarding import deploy

PROVIDERS = {
    "openai": ("OpenAI", {"api_key": "sk-proj-canary-1f8a9c3e5b7d"}, {}),
    "anthropic": ("Anthropic", {"api_key": "sk-ant-canary-9e2b4c6d8f"}, {}),
    "gemini": ("Google Gemini", {"api_key": "AIza-canary-77f1c2d3e4"}, {}),
    "azure": (
        "Azure OpenAI",
        {"api_key": "canary-0d9e8f7a6b5c4d3e"},
        {"api_base": "https://acme-eu.openai.azure.com", "api_version": "2024-10-21"},
    ),
    "bedrock": (
        "AWS Bedrock",
        {"aws_access_key_id": "AKIACANARY0EXAMPLE", "aws_secret_access_key": "canary-aws-9f8e7d"},
        {"aws_region_name": "eu-central-1"},
    ),
    "ollama": ("Ollama", {}, {"api_base": "http://10.20.0.7:11434"}),
}
DEPLOYMENTS = [
    ("openai", "gpt-4o", "gpt-4o"),
    ("azure", "gpt-4o", "gpt-4o"),
    ("openai", "gpt-4o-mini", "gpt-4o-mini"),
    ("anthropic", "claude-sonnet", "claude-sonnet-4-5"),
    ("bedrock", "claude-sonnet", "anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("anthropic", "claude-haiku", "claude-haiku-4-5"),
    ("gemini", "gemini-flash", "gemini-2.5-flash"),
    ("ollama", "llama-local", "llama3.1:8b"),
    ("openai", "embeddings", "text-embedding-3-small"),
    ("openai", "whisper", "whisper-1"),
    ("ollama", "house-model", "acme/house-model:7b"),
]


def supply(*, environment: Environment, actor: User) -> None:
    """Six providers, their credentials, eleven deployments, an alias and three chains."""
    services.price_book_load()
    credentials: dict[str, Credential] = {}
    for kind, (name, secret, params) in PROVIDERS.items():
        provider = services.provider_create(actor=actor, kind=kind, name=name)
        credentials[kind] = services.credential_create(
            actor=actor,
            environment=environment,
            provider=provider,
            name=f"{kind}-{environment.slug}",
            params=params,
            secret=secret,
        )
    for kind, model, upstream in DEPLOYMENTS:
        deploy(
            actor=actor,
            environment=environment,
            model_name=model,
            credential=credentials[kind],
            upstream_model=upstream,
            rpm=5000 if kind == "azure" else None,
            region="eu-central-1" if kind == "bedrock" else "",
        )
    _tests()
    models = {model.name: model for model in Model.objects.all()}
    services.alias_create(
        actor=actor, environment=environment, name="default", model=models["gpt-4o-mini"]
    )
    services.environment_update(actor=actor, environment=environment, default_model="default")
    for kind, chain in (
        ("general", ("gpt-4o", "claude-sonnet", "gemini-flash")),
        ("general", ("claude-sonnet", "gpt-4o-mini")),
        ("context_window", ("gpt-4o", "gemini-flash")),
    ):
        services.chain_create(
            actor=actor,
            environment=environment,
            kind=kind,
            model=models[chain[0]],
            targets=[models[name] for name in chain[1:]],
        )
    credentials_seen(succeeded={row.pk: timezone.now() for row in list(credentials.values())[:4]})


def _tests() -> None:
    at = timezone.now().isoformat()
    good = {
        "state": "ok",
        "at": at,
        "by": "Ada",
        "latency_ms": 612.0,
        "input_tokens": 14,
        "output_tokens": 3,
        "cost": "0.000065",
    }
    bad = {
        "state": "error",
        "at": at,
        "by": "Ada",
        "latency_ms": 96.0,
        "error_class": "authentication",
        "status": 401,
        "title": "The provider refused the credential",
        "advice": "Replace its secret, and check that the key may use this model.",
        "message": "Incorrect API key provided.",
    }
    rows = Deployment.objects.order_by("created_at")
    for number, row in enumerate(rows):
        row.last_test = None if number in {7, 10} else bad if number == 1 else good
        row.save(update_fields=["last_test"])
