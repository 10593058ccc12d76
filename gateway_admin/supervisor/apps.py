from django.apps import AppConfig


class SupervisorConfig(AppConfig):
    name = "gateway_admin.supervisor"

    def ready(self) -> None:
        """Every process that queues a task needs the Celery application with our settings.

        Without it `shared_task` queues with Celery's defaults, at a broker that is not there.
        """
        import gateway_admin.celery  # noqa: F401
