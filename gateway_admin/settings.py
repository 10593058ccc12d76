"""Settings, read from the environment; every one is described in docs/configuration.md.

Development generates what is missing below `GATEWAY_DATA_DIR`; production refuses to
start instead.
"""

import base64
from pathlib import Path

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured

from gateway_admin.lib.crypto import KeyRing
from gateway_admin.lib.embedded_state import EmbeddedState
from gateway_admin.lib.secrets_file import SecretsFile

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

GATEWAY_ENV = env.str("GATEWAY_ENV", "development")
if GATEWAY_ENV not in {"development", "production"}:
    raise ImproperlyConfigured("GATEWAY_ENV is development or production")
PRODUCTION = GATEWAY_ENV == "production"
DEBUG = False

DATA_DIR = Path(env.str("GATEWAY_DATA_DIR", str(BASE_DIR / ".gateway"))).resolve()
_generated = SecretsFile(DATA_DIR / "secrets.json", allowed=not PRODUCTION)

SECRET_KEY = _generated.get("GATEWAY_SECRET_KEY")
try:
    ENCRYPTION_KEYS = KeyRing.parse(_generated.get("GATEWAY_ENCRYPTION_KEYS"))
except ValueError as error:
    raise ImproperlyConfigured(f"GATEWAY_ENCRYPTION_KEYS: {error}") from error
try:
    KEY_PEPPER = base64.b64decode(_generated.get("GATEWAY_KEY_PEPPER"), validate=True)
except ValueError as error:
    raise ImproperlyConfigured(f"GATEWAY_KEY_PEPPER is not base64: {error}") from error


def _integer(name: str, default: int) -> int:
    try:
        return int(env.str(name, str(default)))
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is not a whole number: {error}") from error


WEB_HOST = env.str("GATEWAY_WEB_HOST", "127.0.0.1")
WEB_PORT = _integer("GATEWAY_WEB_PORT", 8000)
WEB_THREADS = _integer("GATEWAY_WEB_THREADS", 8)
PROXY_HOST = env.str("GATEWAY_PROXY_HOST", "127.0.0.1")
PROXY_PORT = _integer("GATEWAY_PROXY_PORT", 4000)
PROXY_WORKERS = _integer("GATEWAY_PROXY_WORKERS", 1)
PROXY_ENVIRONMENTS = env.list("GATEWAY_PROXY_ENVIRONMENTS", default=["prod"])
PUBLIC_URL = env.str("GATEWAY_PUBLIC_URL", f"http://127.0.0.1:{WEB_PORT}").rstrip("/")
PROXY_PUBLIC_URL = env.str("GATEWAY_PROXY_PUBLIC_URL", f"http://127.0.0.1:{PROXY_PORT}").rstrip("/")

ALLOWED_HOSTS = env.list(
    "GATEWAY_ALLOWED_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"]
)
if PRODUCTION and not ALLOWED_HOSTS:
    raise ImproperlyConfigured("GATEWAY_ALLOWED_HOSTS: name the hosts that this site answers to")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
TRUSTED_PROXIES = _integer("GATEWAY_TRUSTED_PROXIES", 0)
METRICS_TOKEN = env.str("GATEWAY_METRICS_TOKEN", "")

INSTALLED_APPS = [
    "gateway_admin.accounts",
    "gateway_admin.catalog",
    "gateway_admin.keys",
    "gateway_admin.fleet",
    "gateway_admin.usage",
    "gateway_admin.dashboards",
    "gateway_admin.demo",
    "gateway_admin.supervisor",
    "gateway_admin.frame",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "pgtrigger",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_htmx",
    "template_partials",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "drf_standardized_errors",
    "django_prometheus",
    "django_structlog",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway_admin.supervisor.middleware.ReadinessMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "gateway_admin.frame.middleware.ContentSecurityPolicyMiddleware",
    "gateway_admin.accounts.middleware.OriginMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "gateway_admin.accounts.middleware.LoginRequiredMiddleware",
    "gateway_admin.frame.middleware.TimeZoneMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "gateway_admin.catalog.middleware.EnvironmentMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "gateway_admin.urls"
WSGI_APPLICATION = "gateway_admin.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "builtins": [
                "template_partials.templatetags.partials",
                "gateway_admin.frame.templatetags.frame",
            ],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "gateway_admin.frame.context_processors.frame",
            ],
        },
    }
]

# Without DATABASE_URL and REDIS_URL: the embedded servers that `manage.py up` runs.
_embedded = None if PRODUCTION else EmbeddedState.read(DATA_DIR)


def _server_url(name: str, embedded_url: str | None) -> str:
    if url := env.str(name, embedded_url or ""):
        return str(url)
    if PRODUCTION:
        raise ImproperlyConfigured(f"{name} is not set. Production runs on real servers.")
    return {
        "DATABASE_URL": "postgres://gateway@127.0.0.1:5432/gateway",
        "REDIS_URL": "redis://127.0.0.1:6379/0",
    }[name]


DATABASE_URL = _server_url("DATABASE_URL", _embedded.database_url if _embedded else None)
DATABASES = {
    "default": {
        **env.db_url_config(DATABASE_URL),
        "ENGINE": "django.db.backends.postgresql",
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
}
DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
REDIS_URL = _server_url("REDIS_URL", _embedded.redis_url if _embedded else None)

CACHES = {
    "default": {
        "BACKEND": "gateway_admin.lib.shared_cache.SharedCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "gateway:cache",
        "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_TIME_LIMIT = 900
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # an outage of any length ends without a hand
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 1800, "socket_connect_timeout": 2}
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "usage-partitions": {"task": "usage.maintain_partitions", "schedule": 3600},
    "fleet-replicas": {"task": "fleet.forget_silent_replicas", "schedule": 60},
    # A round that could not begin before the next one is due is left out.
    "usage-abandoned": {
        "task": "usage.abandoned_account",
        "schedule": 15,
        "options": {"expires": 15},
    },
    "usage-balances": {
        "task": "usage.balances_store",
        "schedule": 30,
        "options": {"expires": 30},
    },
    "usage-counters": {
        "task": "usage.counters_repair",
        "schedule": 300,
        "options": {"expires": 300},
    },
    "keys-policy-log": {"task": "keys.forget_old_policy_changes", "schedule": 3600},
}

ABANDONED_GRACE_S = _integer("GATEWAY_ABANDONED_GRACE_S", 120)
USAGE_RETENTION_DAYS = _integer("GATEWAY_USAGE_RETENTION_DAYS", 180)
USAGE_ACCEPTED_AGE_DAYS = _integer("GATEWAY_USAGE_ACCEPTED_AGE_DAYS", 30)

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "dashboards:overview"
ACCOUNT_ADAPTER = "gateway_admin.accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
MFA_ADAPTER = "gateway_admin.accounts.adapter.MFAAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["gateway_admin.accounts.api.ApiTokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["gateway_admin.accounts.api.RolePermission"],
    "DEFAULT_SCHEMA_CLASS": "drf_standardized_errors.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "gateway_admin.lib.api.KeysetPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "gateway_admin.lib.api.exception_handler",
    "NON_FIELD_ERRORS_KEY": "non_field_errors",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": True,
}
DRF_STANDARDIZED_ERRORS = {"EXCEPTION_HANDLER_CLASS": "gateway_admin.lib.api.ServiceErrorHandler"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Gateway Admin API",
    "DESCRIPTION": "Configure and publish the gateway, issue virtual keys, read usage.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1/",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "KeyStateEnum": ["active", "expired", "blocked", "revoked"],
        "BreakerActionEnum": [("open", "Open"), ("close", "Close"), ("reset", "Reset")],
    },
}

LANGUAGE_CODE = "en-us"
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = not PRODUCTION
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATA_UPLOAD_MAX_MEMORY_SIZE = 20 * 1024 * 1024

_https = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if TRUSTED_PROXIES:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

LOG_LEVEL = env.str("GATEWAY_LOG_LEVEL", "INFO").upper()
_shared_processors: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    structlog.processors.format_exc_info,
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "structured": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _shared_processors,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer()
                if PRODUCTION
                else structlog.dev.ConsoleRenderer(colors=False),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django_structlog": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
    },
}
structlog.configure(
    processors=[*_shared_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
