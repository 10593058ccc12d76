"""The first call in three languages, ready to paste."""

from __future__ import annotations

import json


def client_snippets(*, base_url: str, key: str, model: str) -> list[dict[str, str]]:
    """Snippets for curl, Python and JavaScript against the gateway at `base_url`.

    `base_url` is the proxy's public address without `/v1`; `key` the virtual key, or a stand-in
    such as `$GATEWAY_KEY` where the secret is no longer known.
    """
    root = base_url.rstrip("/")
    body = json.dumps(
        {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}, indent=2
    )
    curl = (
        f"curl {root}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {key}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )
    python = (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{root}/v1", api_key="{key}")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{model}",\n'
        '    messages=[{"role": "user", "content": "Say hello."}],\n'
        ")\n"
        "print(answer.choices[0].message.content)"
    )
    javascript = (
        'import OpenAI from "openai";\n\n'
        f'const client = new OpenAI({{ baseURL: "{root}/v1", apiKey: "{key}" }});\n'
        "const answer = await client.chat.completions.create({\n"
        f'  model: "{model}",\n'
        '  messages: [{ role: "user", content: "Say hello." }],\n'
        "});\n"
        "console.log(answer.choices[0].message.content);"
    )
    return [
        {"label": "curl", "code": curl},
        {"label": "Python", "code": python},
        {"label": "JavaScript", "code": javascript},
    ]
