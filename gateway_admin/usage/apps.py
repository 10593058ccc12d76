"""The ledger's app; it adds the state of the counters to /metrics."""

from django.apps import AppConfig


class UsageConfig(AppConfig):
    name = "gateway_admin.usage"
    label = "usage"

    def ready(self) -> None:
        from gateway_admin.usage.counter_metrics import register

        register()
