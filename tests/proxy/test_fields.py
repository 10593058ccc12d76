"""The lists of steering fields cover what the installed LiteLLM reads from a body."""

import json
import subprocess
import sys
from pathlib import Path

from proxy.fields import is_refused, is_stripped

ROOT = Path(__file__).resolve().parents[2]
_ASK = """
import json, os
os.environ.update(LITELLM_MODE="PRODUCTION", LITELLM_LOCAL_MODEL_COST_MAP="True")
from litellm.types.utils import all_litellm_params
from litellm.types.router import LiteLLM_Params
from litellm.proxy.auth.auth_utils import _BANNED_REQUEST_BODY_PARAMS as banned
from litellm.proxy.litellm_pre_call_utils import _UNTRUSTED_ROOT_CONTROL_FIELDS as untrusted
fields = {*all_litellm_params, *banned, *untrusted, *LiteLLM_Params.model_fields}
print(json.dumps(sorted(fields)))
"""
# Read by LiteLLM, and the client's business: its model, and metadata, which is filtered.
_HARMLESS = {"model", "metadata"}
_PROVIDERS_OWN = [
    "messages", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "tools",
    "tool_choice", "response_format", "stream", "stream_options", "stop", "seed", "user", "n",
    "logprobs", "top_logprobs", "reasoning_effort", "thinking", "system", "input", "instructions",
    "prompt", "voice", "size", "quality", "dimensions", "encoding_format", "query", "documents",
    "top_n", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity",
    "previous_response_id", "include", "truncation", "parallel_tool_calls", "modalities", "audio",
    "prediction", "web_search_options", "anthropic_version", "safety_settings", "language",
]  # fmt: skip


def test_every_field_that_litellm_acts_on_is_covered() -> None:
    told = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=ROOT, capture_output=True, text=True, check=True
    )
    fields = json.loads(told.stdout.strip().splitlines()[-1])
    assert len(fields) > 250
    uncovered = [name for name in fields if not is_refused(name) and not is_stripped(name)]
    assert set(uncovered) <= _HARMLESS


def test_providers_own_fields_pass() -> None:
    assert [name for name in _PROVIDERS_OWN if is_refused(name) or is_stripped(name)] == []
