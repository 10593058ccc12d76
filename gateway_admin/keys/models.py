"""Demand: teams, who belongs to them, the virtual keys they call with, and what rules them."""

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from gateway_admin.catalog.models import slug_validator

EXPIRES_SOON = timedelta(days=7)


class Team(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    slug = models.CharField(max_length=39, unique=True, validators=[slug_validator])
    name = models.CharField(max_length=80, unique=True)
    description = models.CharField(max_length=300, blank=True)
    is_demo = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    members = models.ManyToManyField("accounts.User", through="Membership", related_name="teams")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        MEMBER = "member", "Member"

    user = models.ForeignKey("accounts.User", on_delete=models.CASCADE, related_name="memberships")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=6, choices=Role, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "team"], name="membership_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.team}"


class VirtualKey(models.Model):
    """`sk-gw-<public id>-<secret>`: shown once, stored as HMAC-SHA256 with a pepper."""

    class State(models.TextChoices):
        ACTIVE = "active", "Active"
        BLOCKED = "blocked", "Blocked"
        REVOKED = "revoked", "Revoked"

    class Cache(models.TextChoices):
        OFF = "off", "Off"
        DETERMINISTIC = "deterministic", "Deterministic requests"
        ALL = "all", "All requests"

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.PROTECT, related_name="keys"
    )
    public_id = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    name = models.CharField(max_length=100)
    owner = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.PROTECT, related_name="virtual_keys"
    )
    team = models.ForeignKey(
        Team, null=True, blank=True, on_delete=models.PROTECT, related_name="keys"
    )
    # Names of models and aliases; NULL: every model of the environment.
    allowed_models = ArrayField(models.CharField(max_length=120), null=True, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=8, choices=State, default=State.ACTIVE, editable=False)
    reason = models.CharField(max_length=200, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    cache = models.CharField("response cache", max_length=13, choices=Cache, default=Cache.OFF)
    cache_ttl_s = models.PositiveIntegerField(
        "answers are kept for, seconds", null=True, blank=True
    )  # NULL: the environment's
    # Higher after a purge: what was stored under a lower one is never found again.
    cache_version = models.PositiveIntegerField(default=1, editable=False)
    max_output_tokens = models.PositiveIntegerField(
        "output cap, tokens", null=True, blank=True, validators=[MinValueValidator(1)]
    )  # of requests that state none; NULL: the environment's
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["environment", "-created_at", "-id"], name="key_list"),
            models.Index(fields=["environment", "name", "id"], name="key_name"),
            models.Index(fields=["team", "-created_at", "-id"], name="key_team"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.display_id})"

    @property
    def display_id(self) -> str:
        """What logs and pages show; not a secret."""
        return f"sk-gw-{self.public_id}-…"

    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @property
    def shown_state(self) -> str:
        """State as pages tell it: an active key past its time is "expired"."""
        return "expired" if self.state == self.State.ACTIVE and self.has_expired() else self.state

    @property
    def expires_soon(self) -> bool:
        """Within a week, and still in use."""
        left = self.expires_at and self.expires_at - timezone.now()
        return bool(left and self.shown_state == self.State.ACTIVE and left < EXPIRES_SOON)


class PolicyClock(models.Model):
    """The newest policy version of an environment; written by `policies` only.

    The row is locked from the moment a version is taken until its transaction ends, and it is
    taken last, so versions become visible in order and a reader can skip none.
    """

    environment = models.OneToOneField(
        "catalog.Environment", on_delete=models.CASCADE, related_name="+", primary_key=True
    )
    version = models.BigIntegerField(default=0)
    oldest_delta = models.BigIntegerField(default=0)  # who knows less needs a full resync

    def __str__(self) -> str:
        return f"policy version {self.version}"


class PolicyChange(models.Model):
    """Which key or which subject's rules changed at which policy version.

    The present state is read from the rows themselves.
    """

    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.CASCADE, related_name="+"
    )
    version = models.BigIntegerField()
    key = models.ForeignKey(VirtualKey, null=True, on_delete=models.CASCADE, related_name="+")
    scope = models.CharField(max_length=12, blank=True)  # of a subject whose rules changed
    subject = models.CharField(max_length=256, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["environment", "version"], name="policy_feed")]
        constraints = [
            models.CheckConstraint(
                condition=Q(key__isnull=False, scope="") | (Q(key__isnull=True) & ~Q(scope="")),
                name="policy_change_of_one",
            )
        ]

    def __str__(self) -> str:
        return f"policy change {self.version}"


class Customer(models.Model):
    """Whom a team serves: the `user` field of its requests, in one environment."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.PROTECT, related_name="customers"
    )
    reference = models.CharField(max_length=256)
    name = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["reference"]
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "reference"],
                name="customer_reference_unique",
                violation_error_message="This environment already has that customer.",
            )
        ]
        indexes = [models.Index(fields=["environment", "-created_at", "-id"], name="customer_list")]

    def __str__(self) -> str:
        return self.name or self.reference


class Scope(models.TextChoices):
    """Who a rule speaks of."""

    ENVIRONMENT = "environment", "Environment"
    TEAM = "team", "Team"
    USER = "user", "Person"
    KEY = "key", "Key"
    CUSTOMER = "customer", "Customer"
    CREDENTIAL = "credential", "Credential"


class Rule(models.Model):
    """Of one subject: an environment, or a team, person, key, customer or credential in it.

    A default rule (`is_default`) is for each subject of its scope that has no own rule of the
    same kind and model. `subject` is what replicas and counters call it: the row's id, a
    customer's reference, an environment's short name, "*" for a default.
    """

    SUBJECTS = ("team", "user", "key", "customer", "credential")

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.PROTECT, related_name="+"
    )
    scope = models.CharField(max_length=12, choices=Scope)
    team = models.ForeignKey(Team, null=True, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey("accounts.User", null=True, on_delete=models.CASCADE, related_name="+")
    key = models.ForeignKey(VirtualKey, null=True, on_delete=models.CASCADE, related_name="+")
    customer = models.ForeignKey(Customer, null=True, on_delete=models.CASCADE, related_name="+")
    credential = models.ForeignKey(
        "catalog.Credential", null=True, on_delete=models.CASCADE, related_name="+"
    )
    is_default = models.BooleanField(default=False)
    subject = models.CharField(max_length=256, editable=False)
    model = models.CharField(max_length=120, blank=True)  # public name; "": everything
    # Set by an owner of the key's team, who may therefore change it again.
    by_team_owner = models.BooleanField(default=False, editable=False)
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        abstract = True

    @property
    def target(self) -> models.Model | None:
        """The row of the subject; None for a default and for an environment's rule."""
        if self.is_default or self.scope == Scope.ENVIRONMENT:
            return None
        row: models.Model = getattr(self, self.scope)
        return row


def _one_subject(*scopes: str) -> Q:
    """Exactly the column of the scope is filled, or none for a default."""
    allowed = Q()
    for scope in scopes:
        others = {f"{name}__isnull": True for name in Rule.SUBJECTS if name != scope}
        own = Q(is_default=False)
        if scope in Rule.SUBJECTS:
            own = Q(**{f"{scope}__isnull": False}, is_default=False) | Q(
                **{f"{scope}__isnull": True}, is_default=True
            )
        allowed |= Q(scope=scope, **others) & own
    return allowed


class Budget(Rule):
    """How much may be spent in each period; who would exceed it is refused."""

    class Period(models.TextChoices):
        DAY = "day", "Day"
        WEEK = "week", "Week"
        MONTH = "month", "Month"
        QUARTER = "quarter", "Quarter"
        YEAR = "year", "Year"
        ROLLING = "rolling", "Rolling hours"
        LIFETIME = "lifetime", "Lifetime"

    name = models.CharField(max_length=100)
    limit_usd = models.DecimalField("limit, USD", max_digits=16, decimal_places=6)
    period = models.CharField(max_length=8, choices=Period)
    rolling_hours = models.PositiveSmallIntegerField(null=True, blank=True)
    soft_percent = ArrayField(
        models.PositiveSmallIntegerField(validators=[MinValueValidator(1), MaxValueValidator(100)]),
        default=list,
        blank=True,
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=_one_subject(*Scope.values), name="budget_of_one_subject"
            ),
            models.CheckConstraint(condition=Q(limit_usd__gt=0), name="budget_limit_positive"),
            models.CheckConstraint(
                condition=Q(period="rolling", rolling_hours__isnull=False)
                | (~Q(period="rolling") & Q(rolling_hours__isnull=True)),
                name="budget_rolling_hours",
            ),
            models.UniqueConstraint(
                fields=["environment", "scope", "subject", "model", "period", "rolling_hours"],
                nulls_distinct=False,
                name="budget_unique",
            ),
        ]
        indexes = [
            models.Index(fields=["environment", "-created_at", "-id"], name="budget_list"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def length(self) -> str:
        """The period in words: "month", "rolling 36 h", "rolling 30 d"."""
        hours = self.rolling_hours
        if hours is None:
            return str(self.get_period_display()).lower()
        whole_days = hours % 24 == 0 and hours > 24
        return f"rolling {hours // 24} d" if whole_days else f"rolling {hours} h"


class BudgetOverride(models.Model):
    """Another limit in the budget's place until a moment; it ends by itself."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="overrides")
    limit_usd = models.DecimalField("limit, USD", max_digits=16, decimal_places=6)
    expires_at = models.DateTimeField()
    reason = models.CharField(max_length=200)
    granted_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    granted_at = models.DateTimeField(default=timezone.now)
    revoked_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True)  # also when a later one took its place

    class Meta:
        ordering = ["-granted_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["budget"], condition=Q(revoked_at=None), name="override_one_at_a_time"
            ),
            models.CheckConstraint(condition=Q(limit_usd__gt=0), name="override_limit_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.limit_usd} until {self.expires_at:%Y-%m-%d %H:%M}"

    def is_in_force(self, at: datetime | None = None) -> bool:
        """Whether it stands in the limit's place at this moment (now)."""
        return self.revoked_at is None and self.expires_at > (at or timezone.now())


class BudgetBalance(models.Model):
    """A budget's counter as it was last seen, for when the live counters are away."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="balances")
    # As SubjectPolicy.subject: the row's id, a customer's reference, an environment's name.
    subject = models.CharField(max_length=256)
    period_id = models.CharField(max_length=16)
    spent = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    held = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    as_of = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "subject", "period_id"], name="budget_balance_unique"
            )
        ]

    def __str__(self) -> str:
        return f"{self.subject} in {self.period_id}: {self.spent}"


class BudgetNotice(models.Model):
    """Spend crossed one of a budget's soft thresholds; noted once per period."""

    budget = models.ForeignKey(Budget, on_delete=models.CASCADE, related_name="notices")
    subject = models.CharField(max_length=256)  # as BudgetBalance.subject
    period_id = models.CharField(max_length=16)
    percent = models.PositiveSmallIntegerField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["budget", "subject", "period_id", "percent"], name="budget_notice_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.subject} reached {self.percent}% in {self.period_id}"


class RateLimit(Rule):
    """How fast: requests and tokens in any 60 seconds, requests at once. NULL: not limited."""

    rpm = models.PositiveIntegerField("requests per minute", null=True, blank=True)
    tpm = models.PositiveIntegerField("tokens per minute", null=True, blank=True)
    parallel = models.PositiveIntegerField("parallel requests", null=True, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["scope", "subject", "model"]
        constraints = [
            models.CheckConstraint(
                condition=_one_subject("environment", "team", "user", "key", "customer"),
                name="rate_limit_of_one_subject",
            ),
            models.CheckConstraint(
                condition=Q(rpm__gt=0) | Q(tpm__gt=0) | Q(parallel__gt=0),
                name="rate_limit_limits",
            ),
            models.UniqueConstraint(
                fields=["environment", "scope", "subject", "model"], name="rate_limit_unique"
            ),
        ]

    def __str__(self) -> str:
        return f"limit of {self.scope} {self.subject}"


class Block(models.Model):
    """All calls of a team, a person or a customer are refused. Unblocking deletes the row."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    environment = models.ForeignKey(  # NULL: everywhere
        "catalog.Environment", null=True, on_delete=models.CASCADE, related_name="+"
    )
    scope = models.CharField(max_length=12, choices=Scope)
    team = models.ForeignKey(Team, null=True, on_delete=models.CASCADE, related_name="blocks")
    user = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.CASCADE, related_name="blocks"
    )
    customer = models.ForeignKey(
        Customer, null=True, on_delete=models.CASCADE, related_name="blocks"
    )
    subject = models.CharField(max_length=256, editable=False)
    reason = models.CharField(max_length=200)
    created_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(scope="team", team__isnull=False, user=None, customer=None)
                | Q(scope="user", team=None, user__isnull=False, customer=None)
                | Q(
                    scope="customer",
                    team=None,
                    user=None,
                    customer__isnull=False,
                    environment__isnull=False,
                ),
                name="block_of_one_subject",
            ),
            models.UniqueConstraint(
                fields=["environment", "scope", "subject"],
                nulls_distinct=False,
                name="block_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"block of {self.scope} {self.subject}"

    @property
    def target(self) -> models.Model:
        row: models.Model = getattr(self, self.scope)
        return row
