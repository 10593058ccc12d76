"""The product's settings on servers of this test session.

The first process of a session makes a directory and chooses ports; workers of
pytest-xdist inherit both through the environment. `DATABASE_URL` and `REDIS_URL`, when
set, name servers to use instead.
"""

import os

from tests.servers import TestServers

os.environ.pop("GATEWAY_ENV", None)
servers = TestServers.join()

from gateway_admin.settings import *  # noqa: E402, F403
from gateway_admin.settings import DATABASES  # noqa: E402

DATABASES["default"]["TEST"] = {"TEMPLATE": "template0"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed, not safety
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = True
