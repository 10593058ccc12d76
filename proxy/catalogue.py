"""What a key may use: decisions of the edge, and the answers of its listing routes."""

from datetime import UTC, datetime
from typing import Any

from proxy.contract import KeyPolicy
from proxy.refusals import Refusal, model_not_allowed, no_default_model, unknown_model
from proxy.snapshot import Deployment, Snapshot

# OpenAI's field is a creation time; LiteLLM answers this constant and clients expect one.
CREATED = 1_677_610_602

_UNIT_FIELDS = {
    "input_token": "input_cost_per_token",
    "output_token": "output_cost_per_token",
    "cache_read_token": "cache_read_input_token_cost",
    "cache_write_token": "cache_creation_input_token_cost",
    "reasoning_token": "output_cost_per_reasoning_token",
    "input_audio_token": "input_cost_per_audio_token",
    "output_audio_token": "output_cost_per_audio_token",
    "image": "output_cost_per_image",
    "input_second": "input_cost_per_second",
    "output_second": "output_cost_per_second",
    "input_character": "input_cost_per_character",
    "query": "input_cost_per_query",
    "request": "input_cost_per_request",
}


def may_use(policy: KeyPolicy, snapshot: Snapshot, name: str) -> bool:
    """Whether a name is allowed: itself, the model behind it, or an alias of that model."""
    allowed = policy["models"]
    if allowed is None or name in allowed:
        return True
    model = snapshot.resolve(name)
    return model is not None and (
        model in allowed or any(snapshot.aliases.get(entry) == model for entry in allowed)
    )


def usable_names(policy: KeyPolicy, snapshot: Snapshot) -> list[str]:
    """Models and aliases the key may name, sorted."""
    names = [name for name in snapshot.models if snapshot.by_model.get(name)]
    names += [alias for alias, model in snapshot.aliases.items() if snapshot.by_model.get(model)]
    return sorted(name for name in names if may_use(policy, snapshot, name))


def choose_model(policy: KeyPolicy, snapshot: Snapshot, requested: str) -> str:
    """The model to call for a request, or the Refusal that says why none is."""
    name = requested or snapshot.environment["default_model"] or ""
    if not name:
        raise no_default_model()
    model = snapshot.resolve(name)
    if model is None:
        raise unknown_model(name, usable_names(policy, snapshot))
    if not may_use(policy, snapshot, name):
        raise model_not_allowed(name, usable_names(policy, snapshot))
    if not snapshot.by_model[model]:
        raise Refusal(
            404,
            "model_not_found",
            f"The model '{name}' has no deployment in this environment. Ask an admin to add one.",
            param="model",
            error_class="not_found",
        )
    return model


def model_list(policy: KeyPolicy, snapshot: Snapshot, *, anthropic_shape: bool) -> dict[str, Any]:
    """Answer of GET /v1/models."""
    names = usable_names(policy, snapshot)
    if anthropic_shape:
        return {
            "data": [anthropic_model(name) for name in names],
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
            "has_more": False,
        }
    return {"object": "list", "data": [model_entry(snapshot, name) for name in names]}


def model_entry(snapshot: Snapshot, name: str) -> dict[str, Any]:
    """One model in OpenAI's shape."""
    model = snapshot.resolve(name) or name
    deployments = snapshot.by_model.get(model, ())
    owner = deployments[0].provider if deployments else "gateway"
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}


def anthropic_model(name: str) -> dict[str, Any]:
    """One model in Anthropic's shape."""
    created_at = datetime.fromtimestamp(CREATED, UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": name, "display_name": name, "created_at": created_at}


def model_info(policy: KeyPolicy, snapshot: Snapshot) -> dict[str, Any]:
    """Answer of GET /model/info: LiteLLM's shape, one entry per name and deployment."""
    return {
        "data": [
            _info_entry(snapshot, name, deployment)
            for name in usable_names(policy, snapshot)
            for deployment in snapshot.by_model[snapshot.resolve(name) or name]
        ]
    }


def _info_entry(snapshot: Snapshot, name: str, deployment: Deployment) -> dict[str, Any]:
    model = snapshot.models[deployment.model]
    units = deployment.price.units if deployment.price else {}
    info: dict[str, Any] = {
        "id": deployment.id,
        "db_model": False,
        "key": deployment.model,
        "mode": model["mode"],
        "litellm_provider": deployment.provider_kind,
        "max_tokens": model["max_output_tokens"],
        "max_input_tokens": model["context_window"],
        "max_output_tokens": model["max_output_tokens"],
        # Unpriced is null, never 0: nobody should take it for free.
        "input_cost_per_token": None,
        "output_cost_per_token": None,
    }
    for unit, field in _UNIT_FIELDS.items():
        if unit in units:
            info[field] = float(units[unit])
    return {
        "model_name": name,
        "litellm_params": {"model": deployment.params["model"]},
        "model_info": info,
    }
