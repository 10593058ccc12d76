"""What the tests know of each provider kind."""

from typing import Any

from gateway_admin.demo.simulator.connections import connection_params
from gateway_admin.demo.simulator.process import Simulator

SECRET = "sk-canary-aaaa-1234"
CHAT = {
    "openai": "openai/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-6",
    "gemini": "gemini/gemini-2.5-flash",
    "azure": "azure/gpt-4o",
    "bedrock": "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
    "ollama": "ollama_chat/llama3.2",
}
EMBEDDING = {
    "openai": "openai/text-embedding-3-small",
    "gemini": "gemini/gemini-embedding-001",
    "azure": "azure/text-embedding-3-small",
    "bedrock": "bedrock/amazon.titan-embed-text-v2:0",
    "ollama": "ollama/nomic-embed-text",
}
HELLO: Any = [{"role": "user", "content": "Hello there my friend"}]
HELLO_TOKENS = 8  # four words and four for the message
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def litellm_params(kind: str, simulator: Simulator) -> dict[str, Any]:
    """Connection parameters together with a secret of the kind."""
    params: dict[str, Any] = dict(connection_params(kind, simulator.base_url))
    if kind == "bedrock":
        params |= {"aws_access_key_id": "AKIACANARY001234", "aws_secret_access_key": SECRET}
    elif kind != "ollama":
        params["api_key"] = SECRET
    return params


def row_of(report: dict[str, Any], kind: str, model: str) -> dict[str, Any]:
    """The ledger's only row of the kind and model (given with or without LiteLLM's prefix)."""
    name = model.partition("/")[2] or model
    rows = [row for row in report["rows"] if (row["kind"], row["model"]) == (kind, name)]
    assert len(rows) == 1, report["rows"]
    row: dict[str, Any] = rows[0]
    return row
