"""Columns that tie events to the budgets' counters, and what keeps those right."""

from django.db import migrations, models

COLUMNS = """
ALTER TABLE usage_event
    ADD COLUMN saved_cost numeric,
    ADD COLUMN admission text NOT NULL DEFAULT '',
    ADD COLUMN counter_epoch text NOT NULL DEFAULT '',
    ADD COLUMN charged jsonb NOT NULL DEFAULT '{}';
CREATE INDEX usage_event_abandoned
    ON usage_event (environment_id, started_at DESC, event_id DESC) WHERE status = 'abandoned';

CREATE TABLE usage_customer_day (
    environment_id uuid NOT NULL,
    customer text NOT NULL,
    day date NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    cost numeric NOT NULL,
    cost_nano bigint NOT NULL,
    PRIMARY KEY (environment_id, customer, day, model)
) WITH (fillfactor = 70);
INSERT INTO usage_customer_day
    SELECT environment_id, customer,
           (started_at AT TIME ZONE (SELECT time_zone FROM usage_rollup_state))::date, model,
           count(*), coalesce(sum(cost), 0), coalesce(sum(ceil(cost * 1e9)), 0)
    FROM usage_event WHERE customer <> '' AND status <> 'refused' GROUP BY 1, 2, 3, 4;
"""

# Rows of before are rounded as a whole: closer than a nano-dollar a request.
ROLLUP_COLUMNS = """
ALTER TABLE usage_cost_{span}
    ADD COLUMN cost_nano bigint NOT NULL DEFAULT 0,
    ADD COLUMN saved_cost numeric NOT NULL DEFAULT 0,
    ADD COLUMN cache_hits bigint NOT NULL DEFAULT 0;
UPDATE usage_cost_{span} SET cost_nano = ceil(cost * 1e9) WHERE cost > 0;
"""

DROP = """
DROP TABLE usage_customer_day;
DROP INDEX usage_event_abandoned;
ALTER TABLE usage_event DROP COLUMN saved_cost, DROP COLUMN admission,
    DROP COLUMN counter_epoch, DROP COLUMN charged;
ALTER TABLE usage_cost_hour DROP COLUMN cost_nano, DROP COLUMN saved_cost,
    DROP COLUMN cache_hits;
ALTER TABLE usage_cost_day DROP COLUMN cost_nano, DROP COLUMN saved_cost,
    DROP COLUMN cache_hits;
"""


def widen(apps, schema_editor):
    schema_editor.execute(COLUMNS)
    for span in ("hour", "day"):
        schema_editor.execute(ROLLUP_COLUMNS.format(span=span))


def narrow(apps, schema_editor):
    schema_editor.execute(DROP)


def _mirrored():
    """What the SQL above made, for the models' state."""
    for model in ("costday", "costhour"):
        yield migrations.AddField(model, "cost_nano", models.BigIntegerField())
        yield migrations.AddField(
            model, "saved_cost", models.DecimalField(decimal_places=30, max_digits=60)
        )
        yield migrations.AddField(model, "cache_hits", models.BigIntegerField())
    yield migrations.AddField("usageevent", "admission", models.TextField(default=""))
    yield migrations.AddField("usageevent", "charged", models.JSONField(default=dict))
    yield migrations.AddField("usageevent", "counter_epoch", models.TextField(default=""))
    yield migrations.AddField(
        "usageevent",
        "saved_cost",
        models.DecimalField(decimal_places=30, max_digits=40, null=True),
    )
    yield migrations.CreateModel(
        name="CustomerDay",
        fields=[
            (
                "pk",
                models.CompositePrimaryKey(
                    "environment_id",
                    "customer",
                    "day",
                    "model",
                    blank=True,
                    editable=False,
                    primary_key=True,
                    serialize=False,
                ),
            ),
            ("environment_id", models.UUIDField()),
            ("customer", models.TextField()),
            ("day", models.DateField()),
            ("model", models.TextField()),
            ("requests", models.BigIntegerField()),
            ("cost", models.DecimalField(decimal_places=30, max_digits=60)),
            ("cost_nano", models.BigIntegerField()),
        ],
        options={"db_table": "usage_customer_day"},
    )


class Migration(migrations.Migration):
    dependencies = [("usage", "0001_initial")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(widen, narrow)],
            state_operations=list(_mirrored()),
        ),
        migrations.CreateModel(
            name="CounterState",
            fields=[
                ("environment_id", models.UUIDField(primary_key=True, serialize=False)),
                ("epoch", models.TextField(default="")),
                ("server_run_id", models.TextField(default="")),
                ("built_at", models.DateTimeField(null=True)),
                ("checked_at", models.DateTimeField(null=True)),
                ("counters", models.IntegerField(default=0)),
                ("drift_nano", models.BigIntegerField(default=0)),
                ("drift_at", models.DateTimeField(null=True)),
                ("abandoned", models.IntegerField(default=0)),
            ],
            options={"db_table": "usage_counter_state"},
        ),
        migrations.CreateModel(
            name="CounterUpdate",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("environment_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
                ("deltas", models.TextField()),
            ],
            options={
                "db_table": "usage_counter_update",
                "indexes": [models.Index(fields=["environment_id", "id"], name="counter_update")],
            },
        ),
    ]
