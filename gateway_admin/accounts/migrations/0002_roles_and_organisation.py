"""The three organisation roles and the organisation's row exist from the start."""

from django.db import migrations


def create(apps, schema_editor):
    group = apps.get_model("auth", "Group")
    for name in ("admin", "finance", "developer"):
        group.objects.get_or_create(name=name)
    apps.get_model("accounts", "Organisation").objects.get_or_create(pk=1)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
