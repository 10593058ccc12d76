"""What LiteLLM reads from its environment and from a file, set before it is imported."""

import hmac
import os
import secrets

from proxy.settings import ProxySettings
from proxy.state import StateDirectory, write_atomically

CONFIG_FILE = "litellm.yaml"
LITELLM_YAML = """\
# Generated at start; models and keys come from the control plane, not from here.
general_settings:
  custom_auth: proxy.plugin.authenticate
  disable_budget_reservation: true
  disable_spend_logs: true
  trusted_proxy_ranges: []
litellm_settings:
  telemetry: false
  drop_params: true
  turn_off_message_logging: true
"""

_NOT_FOR_LITELLM = frozenset(
    {"DATABASE_URL", "DIRECT_URL", "GATEWAY_FLEET_TOKEN", "GATEWAY_FLEET_KEY", "GATEWAY_KEY_PEPPER"}
    | {"GATEWAY_SECRET_KEY", "GATEWAY_ENCRYPTION_KEYS", "GATEWAY_ADMIN_PASSWORD"}
    | {"GATEWAY_ADMIN_TOKEN", "STORE_MODEL_IN_DB", "WORKER_CONFIG"}
)
_SALT = b"ids of responses"


def prepare_environment(settings: ProxySettings) -> None:
    """Write the file, take away what is not for LiteLLM, set what is."""
    state = StateDirectory(settings.state_dir)
    config = settings.state_dir / CONFIG_FILE
    if not config.exists() or config.read_text() != LITELLM_YAML:  # a full disk is no obstacle
        write_atomically(config, LITELLM_YAML.encode())
    # LiteLLM would take these up, and nothing after this point needs them.
    for name in list(os.environ):
        if name in _NOT_FOR_LITELLM or name.startswith("REDIS_"):
            del os.environ[name]
    os.environ.update(
        CONFIG_FILE_PATH=str(config),
        LITELLM_MODE="PRODUCTION",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
        LITELLM_TELEMETRY="False",
        # Given to nobody: LiteLLM's own authentication must have no usable key.
        LITELLM_MASTER_KEY="sk-" + secrets.token_urlsafe(48),
        # It seals the ids of responses, which other replicas and later starts must open, too.
        LITELLM_SALT_KEY="sk-" + hmac.digest(settings.fleet.fleet_key, _SALT, "sha256").hex(),
        NO_DOCS="True",
        NO_REDOC="True",
        NO_OPENAPI="True",
        DISABLE_ADMIN_UI="True",
        # No callbacks in threads: nobody reads what they make, and they add to dictionaries that
        # the event loop is walking through, which turns an answer into a failure. Beyond this
        # many LiteLLM drops them.
        LOGGING_EXECUTOR_MAX_PENDING_TASKS="0",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
        PROMETHEUS_MULTIPROC_DIR=str(state.metrics),
    )
