"""Demand: teams, who belongs to them, and the virtual keys they call with."""

from datetime import timedelta
from uuid import uuid4

from django.contrib.postgres.fields import ArrayField
from django.db import models
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
    """Which key changed at which policy version; its present state is read from the key."""

    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.CASCADE, related_name="+"
    )
    version = models.BigIntegerField()
    key = models.ForeignKey(VirtualKey, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [models.Index(fields=["environment", "version"], name="policy_feed")]

    def __str__(self) -> str:
        return f"policy change {self.version}"
