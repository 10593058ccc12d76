"""Why a request went through LiteLLM."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("usage", "0002_counters")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE usage_event ADD COLUMN lane_reason text NOT NULL DEFAULT ''",
                    "ALTER TABLE usage_event DROP COLUMN lane_reason",
                )
            ],
            state_operations=[
                migrations.AddField("usageevent", "lane_reason", models.TextField(default=""))
            ],
        )
    ]
