"""What is published, to whom, and what each replica runs."""

from uuid import uuid4

import pgtrigger
from django.db import models
from django.utils import timezone


class FleetIdentity(models.Model):
    """How an environment's replicas prove themselves, and the key their secrets travel under.

    The token is found by its HMAC-SHA256; the key is encrypted with the key ring because the
    control plane needs it for every delivery. After a rotation the previous token is still
    accepted for a while, so that replicas can be moved over one by one.
    """

    environment = models.OneToOneField(
        "catalog.Environment", on_delete=models.CASCADE, related_name="fleet", primary_key=True
    )
    token_digest = models.CharField(max_length=64, unique=True)
    token_ciphertext = models.BinaryField()  # for the replicas that `manage.py up` starts
    fleet_key_ciphertext = models.BinaryField()
    key_id = models.CharField(max_length=32)
    previous_token_digest = models.CharField(max_length=64, blank=True, db_index=True)
    previous_token_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    rotated_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"fleet of {self.environment}"

    def context(self, column: str) -> bytes:
        """Associated data: a ciphertext opens in this column of this row only."""
        return f"fleet_fleetidentity:{column}:{self.pk}".encode()


class Revision(models.Model):
    """What an environment serves from a publish on. Immutable; the highest number is active."""

    id = models.BigAutoField(primary_key=True)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.PROTECT, related_name="revisions"
    )
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)
    document = models.JSONField()  # proxy.contract.RevisionDocument
    change_count = models.PositiveIntegerField()  # against the revision before it
    comment = models.CharField(max_length=300, blank=True)
    published_by = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.PROTECT, related_name="+"
    )
    published_at = models.DateTimeField(default=timezone.now)
    rolled_back_to = models.PositiveIntegerField(null=True)  # number whose content this repeats

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["environment", "number"], name="revision_number_unique")
        ]
        triggers = [
            pgtrigger.Protect(
                name="revision_immutable", operation=pgtrigger.Update | pgtrigger.Delete
            )
        ]

    def __str__(self) -> str:
        return f"revision {self.number}"

    @property
    def previous_number(self) -> int:
        return self.number - 1


class Replica(models.Model):
    """One proxy process of an environment; its workers tell when it was last seen."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)  # chosen by the replica
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.CASCADE, related_name="replicas"
    )
    hostname = models.CharField(max_length=200)
    version = models.CharField(max_length=40)
    first_seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["environment__position", "hostname", "id"]

    def __str__(self) -> str:
        return self.hostname

    @property
    def short_id(self) -> str:
        return str(self.pk)[:8]


class ReplicaWorker(models.Model):
    """Where one worker process of a replica stands; it acknowledges for itself."""

    replica = models.ForeignKey(Replica, on_delete=models.CASCADE, related_name="workers")
    slot = models.PositiveSmallIntegerField()
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(default=timezone.now)
    applied_revision = models.PositiveIntegerField(null=True)
    applied_digest = models.CharField(max_length=64, blank=True)
    acknowledged_at = models.DateTimeField(null=True)
    rejected_revision = models.PositiveIntegerField(null=True)
    rejected_error = models.TextField(blank=True)
    rejected_deployment = models.UUIDField(null=True)
    policy_version = models.BigIntegerField(default=0)
    spool_events = models.BigIntegerField(default=0)
    spool_bytes = models.BigIntegerField(default=0)
    dropped_events = models.BigIntegerField(default=0)
    healthy = models.BooleanField(default=True)
    reasons = models.JSONField(default=list)
    unwell_since = models.DateTimeField(null=True)
    # How limits are counted: shared, local (Redis is away), unbuilt; "" before it was told.
    counters = models.CharField(max_length=8, blank=True)
    counters_since = models.DateTimeField(null=True)

    class Meta:
        ordering = ["replica", "slot"]
        constraints = [
            models.UniqueConstraint(fields=["replica", "slot"], name="replica_worker_unique")
        ]

    def __str__(self) -> str:
        return f"worker {self.slot} of {self.replica}"


class BackgroundSign(models.Model):
    """When background work was last done: how the site knows that worker and scheduler run."""

    WORKER = "worker"

    name = models.CharField(max_length=20, primary_key=True)
    at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%Y-%m-%d %H:%M:%S}"


class BreakerState(models.TextChoices):
    CLOSED = "closed", "Closed"
    OPEN = "open", "Open"
    HALF_OPEN = "half_open", "Half-open"


class BreakerTransition(models.Model):
    """A circuit breaker changed its state, as the worker that saw it told.

    Generations may begin anew when Redis was emptied, so the moment is part of the name.
    """

    id = models.BigAutoField(primary_key=True)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.CASCADE, related_name="breaker_transitions"
    )
    deployment_id = models.UUIDField()
    generation = models.BigIntegerField()
    state = models.CharField(max_length=9, choices=BreakerState)
    at = models.DateTimeField()
    reason = models.CharField(max_length=300, blank=True)
    replica = models.CharField(max_length=220, blank=True)  # host and worker
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-generation"]
        constraints = [
            models.UniqueConstraint(
                fields=["deployment_id", "generation", "state", "at"],
                name="breaker_transition_once",
            )
        ]
        indexes = [
            models.Index(fields=["deployment_id", "-at", "-generation"], name="breaker_newest"),
            models.Index(fields=["at"], name="breaker_age"),
        ]

    def __str__(self) -> str:
        return f"{self.state} at {self.at:%Y-%m-%d %H:%M:%S}"


class BreakerOrder(models.Model):
    """What a person told a deployment's breaker to do. Replicas follow each order once."""

    class Action(models.TextChoices):
        OPEN = "open", "Open"
        CLOSE = "close", "Close"
        RESET = "reset", "Reset"

    id = models.BigAutoField(primary_key=True)
    environment = models.ForeignKey(
        "catalog.Environment", on_delete=models.CASCADE, related_name="breaker_orders"
    )
    deployment = models.ForeignKey(
        "catalog.Deployment", on_delete=models.CASCADE, related_name="breaker_orders"
    )
    action = models.CharField(max_length=5, choices=Action)
    reason = models.CharField(max_length=300)
    actor = models.ForeignKey(
        "accounts.User", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["deployment", "-id"], name="breaker_order_newest")]

    def __str__(self) -> str:
        return f"{self.get_action_display()} breaker of {self.deployment}"
