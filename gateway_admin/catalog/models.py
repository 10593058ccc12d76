"""Supply: what can be called, with whose credential, at which price.

Rows are the draft of an environment; `fleet` renders them to immutable revisions.
"""

from uuid import uuid4

import pgtrigger
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

slug_validator = RegexValidator(
    r"^[a-z][a-z0-9-]{0,38}$", "Lower-case letters, digits and hyphens, beginning with a letter."
)
model_name_validator = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,119}$",
    "Letters, digits and . _ : / @ -, beginning with a letter or a digit.",
)


class Lane(models.TextChoices):
    """Which way calls take to a provider: from the edge itself where it can, or LiteLLM's."""

    AUTO = "auto", "Direct when possible"
    LITELLM = "litellm", "Always through LiteLLM"


def _at_least_one(label: str, default: int) -> "models.PositiveIntegerField[int, int]":
    return models.PositiveIntegerField(label, default=default, validators=[MinValueValidator(1)])


class Environment(models.Model):
    """dev, staging, prod: own deployments, credentials, keys, defaults and fleet."""

    class Colour(models.TextChoices):
        GREEN = "green", "Green"
        BLUE = "blue", "Blue"
        AMBER = "amber", "Amber"
        RED = "red", "Red"
        PURPLE = "purple", "Purple"
        TEAL = "teal", "Teal"

    class CounterOutage(models.TextChoices):
        SHARE = "share", "Serve: each worker spends its share of what was left"
        REFUSE = "refuse", "Refuse requests that a budget or limit applies to"

    class AllOpen(models.TextChoices):
        REFUSE = "refuse", "Refuse at once"
        TRY = "try", "Try one anyway"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    slug = models.CharField(max_length=39, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=60)
    colour = models.CharField(max_length=10, choices=Colour, default=Colour.BLUE)
    position = models.PositiveSmallIntegerField(default=0)
    auto_publish = models.BooleanField("publish every edit by itself", default=False)
    default_model = models.CharField(
        max_length=120,
        blank=True,
        help_text="Model or alias for requests that name none.",
    )
    fallback_enabled = models.BooleanField("use fallback chains", default=True)
    timeout_s = models.FloatField(
        "time-out of a request, seconds", default=600, validators=[MinValueValidator(0.1)]
    )
    stream_timeout_s = models.FloatField(
        "time-out until a stream's first byte, seconds",
        default=60,
        validators=[MinValueValidator(0.1)],
    )
    total_timeout_s = models.FloatField(
        "time-out of all attempts together, seconds",
        default=600,
        validators=[MinValueValidator(0.1)],
    )
    num_retries = models.PositiveSmallIntegerField("retries on the same model", default=1)
    retry_backoff_s = models.FloatField(
        "wait before the first retry, seconds", default=0.5, validators=[MinValueValidator(0)]
    )
    default_output_tokens = models.PositiveIntegerField(
        "longest answer of requests that state none, tokens",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
    )
    on_counter_outage = models.CharField(
        "when limits cannot be counted together",
        max_length=6,
        choices=CounterOutage,
        default=CounterOutage.SHARE,
    )
    breaker_enabled = models.BooleanField("use circuit breakers", default=True)
    breaker_consecutive_failures = _at_least_one("failures in a row", 5)
    breaker_failure_percent = models.PositiveSmallIntegerField(
        "failures, percent", default=50, validators=[MinValueValidator(1), MaxValueValidator(100)]
    )
    breaker_minimum_calls = _at_least_one("of at least so many calls", 20)
    breaker_window_s = _at_least_one("within, seconds", 60)
    breaker_open_s = _at_least_one("stays open, seconds", 30)
    breaker_half_open_permits = _at_least_one("trial calls at once", 3)
    breaker_close_after_successes = _at_least_one("successes that close it", 3)
    breaker_slow_call_s = models.FloatField(
        "slow call, seconds", null=True, blank=True, validators=[MinValueValidator(0.1)]
    )
    breaker_all_open = models.CharField(
        "when every deployment is kept out",
        max_length=6,
        choices=AllOpen,
        default=AllOpen.REFUSE,
    )
    cache_enabled = models.BooleanField("keep answers", default=True)
    cache_ttl_s = _at_least_one("kept for, seconds", 3_600)
    cache_max_entry_bytes = _at_least_one("longest answer kept, bytes", 1024 * 1024)

    class Meta:
        ordering = ["position", "slug"]

    def __str__(self) -> str:
        return self.name


class Provider(models.Model):
    """Who answers: OpenAI, Anthropic, … `kind` decides which fields its credentials need."""

    class Kind(models.TextChoices):
        OPENAI = "openai", "OpenAI"
        ANTHROPIC = "anthropic", "Anthropic"
        GEMINI = "gemini", "Google Gemini"
        AZURE = "azure", "Azure OpenAI"
        BEDROCK = "bedrock", "AWS Bedrock"
        OLLAMA = "ollama", "Ollama"
        OTHER = "other", "Other LiteLLM provider"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    slug = models.CharField(max_length=39, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=60, unique=True)
    kind = models.CharField(max_length=12, choices=Kind)
    litellm_provider = models.CharField(
        "LiteLLM provider", max_length=60, help_text="LiteLLM's own name, for example “mistral”."
    )
    is_demo = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Credential(models.Model):
    """Access to a provider in one environment. The secret itself is a `CredentialSecret`."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="credentials"
    )
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="credentials")
    name = models.CharField(max_length=80)
    params = models.JSONField(default=dict, blank=True)  # LiteLLM parameters that are not secret
    secret = models.ForeignKey(
        "CredentialSecret", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    enabled = models.BooleanField(default=True)
    last_success_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.CharField(max_length=500, blank=True, editable=False)
    last_error_class = models.CharField(max_length=20, blank=True, editable=False)
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["provider__name", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "name"],
                name="credential_name_unique",
                violation_error_message="This environment already has a credential of that name.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_refused(self) -> bool:
        """The provider refused it at the last contact."""
        if self.last_error_class != "authentication" or self.last_error_at is None:
            return False
        return self.last_success_at is None or self.last_success_at < self.last_error_at


class CredentialSecret(models.Model):
    """One version of a credential's secret fields, encrypted as one JSON object.

    Immutable: replacing a secret adds a version, so that a published revision keeps the
    version it was published with. Re-encryption under a new key (`rotate_secrets`) may
    change `key_id` and `ciphertext` only.
    """

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="secrets")
    version = models.PositiveIntegerField()
    key_id = models.CharField(max_length=32)
    ciphertext = models.BinaryField()
    fingerprint = models.CharField(max_length=16)  # keyed, so that it cannot be guessed back
    hints = models.JSONField(default=dict)  # secret field -> its last four signs
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["credential", "version"], name="credential_secret_version"
            )
        ]
        triggers = [
            pgtrigger.ReadOnly(
                name="credential_secret_immutable",
                fields=["credential", "version", "fingerprint", "created_at"],
            )
        ]

    def __str__(self) -> str:
        return f"secret {self.version} ({self.fingerprint})"

    def context(self) -> bytes:
        """Associated data: the ciphertext opens in this column of this row only."""
        return f"catalog_credentialsecret:ciphertext:{self.pk}".encode()


class Model(models.Model):
    """The public name that clients ask for; served by deployments, per environment."""

    class Mode(models.TextChoices):
        CHAT = "chat", "Chat"
        COMPLETION = "completion", "Completion"
        RESPONSES = "responses", "Responses"
        EMBEDDING = "embedding", "Embedding"
        IMAGE = "image_generation", "Image"
        TRANSCRIPTION = "audio_transcription", "Transcription"
        SPEECH = "audio_speech", "Speech"
        RERANK = "rerank", "Rerank"
        MODERATION = "moderation", "Moderation"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    name = models.CharField(max_length=120, unique=True, validators=[model_name_validator])
    mode = models.CharField(max_length=24, choices=Mode, default=Mode.CHAT)
    description = models.CharField(max_length=300, blank=True)
    context_window = models.PositiveIntegerField("context window, tokens", null=True, blank=True)
    max_output_tokens = models.PositiveIntegerField("longest answer, tokens", null=True, blank=True)
    cache = models.BooleanField("answers may be kept", default=True)
    lane = models.CharField(max_length=8, choices=Lane, default=Lane.AUTO)
    is_demo = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class ModelAlias(models.Model):
    """A name such as `default` that points to a model in one environment."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="aliases")
    name = models.CharField(max_length=120, validators=[model_name_validator])
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="aliases")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "name"],
                name="alias_name_unique",
                violation_error_message="This environment already has an alias of that name.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Deployment(models.Model):
    """A provider's model behind one credential and endpoint, serving one public model."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="deployments"
    )
    name = models.CharField(max_length=120)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="deployments")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="deployments")
    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, related_name="deployments")
    upstream_model = models.CharField(
        "provider's model", max_length=200, help_text="The provider's own name for it."
    )
    params = models.JSONField("further LiteLLM parameters", default=dict, blank=True)
    rpm = models.PositiveIntegerField("requests per minute", null=True, blank=True)
    tpm = models.PositiveIntegerField("tokens per minute", null=True, blank=True)
    weight = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1)])
    timeout_s = models.FloatField(
        "time-out, seconds", null=True, blank=True, validators=[MinValueValidator(0.1)]
    )
    stream_timeout_s = models.FloatField(
        "time-out until the first byte, seconds",
        null=True,
        blank=True,
        validators=[MinValueValidator(0.1)],
    )
    region = models.CharField(max_length=60, blank=True)
    lane = models.CharField(max_length=8, choices=Lane, default=Lane.AUTO)
    enabled = models.BooleanField(default=True)
    last_test = models.JSONField(null=True, blank=True, editable=False)  # services.TestResult
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["model__name", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "name"],
                name="deployment_name_unique",
                violation_error_message="This environment already has a deployment of that name.",
            )
        ]

    def __str__(self) -> str:
        return self.name


class Price(models.Model):
    """Unit prices of a deployment from a moment on; a price version. Never changed.

    `units` maps a unit of `proxy.contract.PRICE_UNITS` to a decimal string: US dollars
    per one unit. No row, or an empty `units`: the deployment is unpriced.
    """

    class Source(models.TextChoices):
        BOOK = "book", "Price book"
        OWN = "own", "Own price"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="prices")
    source = models.CharField(max_length=4, choices=Source)
    units = models.JSONField()
    effective_from = models.DateTimeField(default=timezone.now)
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-effective_from"]
        indexes = [models.Index(fields=["deployment", "-effective_from"], name="price_current")]
        triggers = [
            pgtrigger.ReadOnly(
                name="price_immutable", fields=["deployment", "source", "units", "effective_from"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_source_display()} from {self.effective_from:%Y-%m-%d}"


class PriceBookEntry(models.Model):
    """One row of LiteLLM's bundled price table, as loaded by `manage.py load_prices`."""

    name = models.CharField(max_length=200, primary_key=True)  # LiteLLM's key
    litellm_provider = models.CharField(max_length=60, db_index=True)
    mode = models.CharField(max_length=40, blank=True)
    units = models.JSONField(default=dict)
    context_window = models.PositiveIntegerField(null=True)
    max_output_tokens = models.PositiveIntegerField(null=True)
    book_version = models.CharField(max_length=40)  # "litellm 1.106.2"

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class FallbackChain(models.Model):
    """Which models are tried, in order, when a model fails in a certain way."""

    class Kind(models.TextChoices):
        GENERAL = "general", "General"
        CONTEXT_WINDOW = "context_window", "Context window"
        CONTENT_POLICY = "content_policy", "Content policy"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(Environment, on_delete=models.PROTECT, related_name="chains")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="chains")
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.GENERAL)
    targets = models.ManyToManyField(Model, through="ChainTarget", related_name="+")

    class Meta:
        ordering = ["model__name", "kind"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "model", "kind"],
                name="chain_unique",
                violation_error_message="This model already has a chain of that kind.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} ({self.get_kind_display().lower()})"


class ChainTarget(models.Model):
    """One step of a fallback chain."""

    chain = models.ForeignKey(FallbackChain, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["chain", "position"], name="chain_position_unique"),
            models.UniqueConstraint(fields=["chain", "model"], name="chain_target_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.position}. {self.model}"
