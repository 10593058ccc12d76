"""The ledger of usage events and the rollups that pages read.

The tables are created by SQL in the migrations (partitions, fill factors, the append-only
trigger); the models mirror them. Ids of keys, teams, people, deployments and providers are
kept without foreign keys: the ledger outlives the rows that it speaks of.
"""

from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models

NOBODY = UUID(int=0)  # stands for "none" in rollups, so that equality joins work


class UsageEvent(models.Model):
    """One request of a client, whatever became of it. Appended, never changed.

    Range-partitioned by UTC day of `started_at`; unique by (event_id, started_at). Tokens are
    counts, `cost` is in US dollars (NULL: unpriced), durations are milliseconds.
    """

    event_id = models.UUIDField(primary_key=True)
    started_at = models.DateTimeField()
    received_at = models.DateTimeField()
    environment_id = models.UUIDField()
    replica_id = models.UUIDField(null=True)
    series_id = models.IntegerField()  # its rollup series
    revision = models.IntegerField(null=True)
    key_id = models.UUIDField()
    public_id = models.TextField()
    user_id = models.BigIntegerField(null=True)
    team_id = models.UUIDField(null=True)
    customer = models.TextField()
    tags = models.JSONField()
    route = models.TextField()
    requested_model = models.TextField()
    model = models.TextField()
    deployment_id = models.UUIDField(null=True)
    provider_id = models.UUIDField(null=True)
    why = models.TextField()
    status = models.TextField()
    http_status = models.SmallIntegerField()
    error_class = models.TextField()
    error = models.TextField()
    input_tokens = models.IntegerField()
    output_tokens = models.IntegerField()
    cache_read_tokens = models.IntegerField()
    cache_write_tokens = models.IntegerField()
    reasoning_tokens = models.IntegerField()
    other_units = models.JSONField()
    price_version = models.TextField(null=True)  # noqa: DJ001 (NULL: no price was known)
    unit_prices = models.JSONField()
    cost = models.DecimalField(null=True, max_digits=40, decimal_places=30)
    estimated = models.BooleanField()
    streaming = models.BooleanField()
    latency_ms = models.FloatField()
    ttft_ms = models.FloatField(null=True)
    overhead_ms = models.FloatField(null=True)
    lane = models.TextField()  # of the attempt that answered: direct, litellm; "" not told
    lane_reason = models.TextField(default="")  # why LiteLLM served it
    attempts = models.JSONField()
    saved_cost = models.DecimalField(null=True, max_digits=40, decimal_places=30)
    # How the budgets' counters learned of it: shared, local, none; "": not told.
    admission = models.TextField(default="")
    counter_epoch = models.TextField(default="")  # of the counters it was settled in
    charged = models.JSONField(default=dict)  # counter -> bucket of a rolling period, or null

    class Meta:
        db_table = "usage_event"
        ordering = ["-started_at", "-event_id"]

    def __str__(self) -> str:
        return f"{self.status} {self.requested_model} at {self.started_at:%Y-%m-%d %H:%M:%S}"


class Level(models.IntegerChoices):
    """How finely a rollup row is split; each level is the sum of the one before."""

    KEY = 0, "key"  # every dimension
    TEAM = 1, "team"  # without key, person (unless the key has no team) and requested model
    MODEL = 2, "model"  # without team as well


class Series(models.Model):
    """One combination of the dimensions that rollups are split by, at one level.

    `NOBODY`, 0 and "" stand for none. `parent` is the series one level up.
    """

    id = models.AutoField(primary_key=True)
    level = models.SmallIntegerField(choices=Level)
    parent_id = models.IntegerField(null=True)
    environment_id = models.UUIDField()
    team_id = models.UUIDField()
    key_id = models.UUIDField()
    user_id = models.BigIntegerField()
    requested_model = models.TextField()
    model = models.TextField()
    deployment_id = models.UUIDField()
    provider_id = models.UUIDField()
    status = models.TextField()
    error_class = models.TextField()

    class Meta:
        db_table = "usage_series"

    def __str__(self) -> str:
        return f"{self.model} {self.status} (level {self.level})"


class CostRow(models.Model):
    """What one series did in one span of time. Cost is in US dollars, exact."""

    level = models.SmallIntegerField()
    series_id = models.IntegerField()
    requests = models.BigIntegerField()
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    cache_write_tokens = models.BigIntegerField()
    reasoning_tokens = models.BigIntegerField()
    cost = models.DecimalField(max_digits=60, decimal_places=30)
    cost_nano = models.BigIntegerField()  # each cost rounded up to 1e-9 USD, as counters count
    saved_cost = models.DecimalField(max_digits=60, decimal_places=30)
    cache_hits = models.BigIntegerField()
    unpriced = models.BigIntegerField()
    estimated = models.BigIntegerField()
    fallbacks = models.BigIntegerField()
    streams = models.BigIntegerField()

    class Meta:
        abstract = True


class CostHour(CostRow):
    """An hour of UTC."""

    pk = models.CompositePrimaryKey("level", "hour", "series_id")
    hour = models.DateTimeField()

    class Meta:
        db_table = "usage_cost_hour"

    def __str__(self) -> str:
        return f"series {self.series_id} at {self.hour:%Y-%m-%d %H:00}"


class CostDay(CostRow):
    """A day of the organisation's time zone (`RollupState.time_zone`)."""

    pk = models.CompositePrimaryKey("level", "day", "series_id")
    day = models.DateField()

    class Meta:
        db_table = "usage_cost_day"

    def __str__(self) -> str:
        return f"series {self.series_id} on {self.day}"


class Measure(models.IntegerChoices):
    """Which duration a histogram counts; all in milliseconds, of answered requests."""

    LATENCY = 0, "latency"
    FIRST_TOKEN = 1, "time to first token"
    OVERHEAD = 2, "gateway overhead"


class LatencyRow(models.Model):
    """A mergeable histogram: `counts[i]` durations lie in log bucket `first_bucket + i`.

    Bucket k holds durations in (1.08^(k-1), 1.08^k] ms. Levels TEAM and MODEL only.
    """

    level = models.SmallIntegerField()
    series_id = models.IntegerField()
    measure = models.SmallIntegerField(choices=Measure)
    first_bucket = models.SmallIntegerField()
    counts = ArrayField(models.BigIntegerField())

    class Meta:
        abstract = True


class LatencyHour(LatencyRow):
    """An hour of UTC."""

    pk = models.CompositePrimaryKey("level", "hour", "series_id", "measure")
    hour = models.DateTimeField()

    class Meta:
        db_table = "usage_latency_hour"

    def __str__(self) -> str:
        return f"series {self.series_id} at {self.hour:%Y-%m-%d %H:00}"


class LatencyDay(LatencyRow):
    """A day of the organisation's time zone."""

    pk = models.CompositePrimaryKey("level", "day", "series_id", "measure")
    day = models.DateField()

    class Meta:
        db_table = "usage_latency_day"

    def __str__(self) -> str:
        return f"series {self.series_id} on {self.day}"


class CustomerDay(models.Model):
    """What one customer was served on a day of the organisation's time zone, per model."""

    pk = models.CompositePrimaryKey("environment_id", "customer", "day", "model")
    environment_id = models.UUIDField()
    customer = models.TextField()
    day = models.DateField()
    model = models.TextField()
    requests = models.BigIntegerField()
    cost = models.DecimalField(max_digits=60, decimal_places=30)
    cost_nano = models.BigIntegerField()

    class Meta:
        db_table = "usage_customer_day"

    def __str__(self) -> str:
        return f"{self.customer} on {self.day}"


class CounterState(models.Model):
    """The shared counters of one environment, as this side last saw them."""

    environment_id = models.UUIDField(primary_key=True)
    epoch = models.TextField(default="")
    server_run_id = models.TextField(default="")  # Redis names a start of its process
    built_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)  # last rebuild or repair
    counters = models.IntegerField(default=0)
    drift_nano = models.BigIntegerField(default=0)  # sum of what the last check had to mend
    drift_at = models.DateTimeField(null=True)  # last check that had to mend anything
    abandoned = models.IntegerField(default=0)  # holds that wait to be accounted for

    class Meta:
        db_table = "usage_counter_state"

    def __str__(self) -> str:
        return f"counters {self.epoch or 'unbuilt'}"

    def is_of(self, epoch: str, server_run_id: str) -> bool:
        """Whether these are the counters that we know, on the server that we know."""
        return self.epoch == epoch and self.server_run_id == server_run_id


class CounterUpdate(models.Model):
    """What a committed batch adds to counters; deleted once Redis has it, so none is lost."""

    id = models.BigAutoField(primary_key=True)
    environment_id = models.UUIDField()
    created_at = models.DateTimeField()
    deltas = models.TextField()  # JSON: [[counter, bucket or null, epoch or "", nano-dollars]]

    class Meta:
        db_table = "usage_counter_update"
        indexes = [models.Index(fields=["environment_id", "id"], name="counter_update")]

    def __str__(self) -> str:
        return f"counter update {self.pk}"


class RollupState(models.Model):
    """The time zone that the daily rollups are cut in; follows the organisation's."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    time_zone = models.TextField()

    class Meta:
        db_table = "usage_rollup_state"

    def __str__(self) -> str:
        return f"days of {self.time_zone}"
