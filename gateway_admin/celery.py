"""Background worker. Tasks fetch and call a service; the schedule stands in the settings."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_admin.settings")

app = Celery("gateway_admin")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
