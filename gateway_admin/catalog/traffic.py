"""What supply's pages say of recent traffic. `usage` knows it and builds on this app: late."""

from typing import Any

from gateway_admin.catalog.models import Deployment, Lane


def lane_card(deployment: Deployment) -> dict[str, Any]:
    """Context of the line "Lane" of a deployment: what is set, and what recent requests say."""
    from gateway_admin.usage.lanes import recent_lanes

    own, model = deployment.lane, deployment.model.lane
    kept = Lane.LITELLM in (own, model)
    return {
        "lane": Lane.LITELLM.label if kept else Lane.AUTO.label,
        "lane_by_model": own != Lane.LITELLM and model == Lane.LITELLM,
        "lanes": recent_lanes(deployment),
    }
