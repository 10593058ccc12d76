"""How LiteLLM is pointed at the simulator."""

KINDS = ("openai", "anthropic", "gemini", "azure", "bedrock", "ollama", "cohere")


def connection_params(kind: str, base_url: str) -> dict[str, str]:
    """Return the LiteLLM parameters, none of them secret, for a credential of the kind.

    `base_url` is the simulator's own, such as `http://127.0.0.1:4900`. Beside these, a
    credential needs its secret, any text of 8 or more characters:

    - openai, anthropic, gemini, azure, cohere: `api_key`
    - bedrock: `aws_access_key_id` (what the ledger tells credentials apart by) and
      `aws_secret_access_key`; signatures are not verified
    - ollama: none (an `api_key` is accepted)

    Model names carry LiteLLM's prefix: `openai/gpt-4o`, `anthropic/...`, `gemini/...`,
    `azure/<deployment>`, `bedrock/<model id>`, `ollama_chat/...` (chat) or `ollama/...`
    (generate, embeddings), `cohere/rerank-v3.5`. The stock openai client takes
    `<base_url>/openai/v1`, the stock anthropic client `<base_url>/anthropic`.
    """
    root = base_url.rstrip("/")
    params: dict[str, dict[str, str]] = {
        "openai": {"api_base": f"{root}/openai/v1"},
        "anthropic": {"api_base": f"{root}/anthropic"},
        "gemini": {"api_base": f"{root}/gemini/v1beta"},
        "azure": {"api_base": f"{root}/azure", "api_version": "2024-10-21"},
        "bedrock": {
            "aws_bedrock_runtime_endpoint": f"{root}/bedrock",
            "aws_region_name": "us-east-1",
        },
        "ollama": {"api_base": f"{root}/ollama"},
        "cohere": {"api_base": f"{root}/cohere"},
    }
    if kind not in params:
        raise ValueError(f"unknown provider kind {kind!r}: one of {', '.join(KINDS)}")
    return params[kind]
