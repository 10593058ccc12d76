"""dev publishes by itself, staging and prod on demand. Names and defaults can be edited."""

from django.db import migrations

ENVIRONMENTS = [
    {"slug": "dev", "name": "Development", "colour": "green", "position": 1, "auto_publish": True},
    {"slug": "staging", "name": "Staging", "colour": "amber", "position": 2},
    {"slug": "prod", "name": "Production", "colour": "red", "position": 3},
]


def create(apps, schema_editor):
    environment = apps.get_model("catalog", "Environment")
    for fields in ENVIRONMENTS:
        environment.objects.get_or_create(slug=fields["slug"], defaults=fields)


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
