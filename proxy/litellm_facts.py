"""Asks LiteLLM, once per deployment, what decides how it writes requests to its provider.

Imports LiteLLM: only backend.py does it.
"""

from proxy.direct_request import LiteLlmFacts
from proxy.snapshot import Deployment


def facts_of(deployment: Deployment) -> LiteLlmFacts:
    """What LiteLLM knows of a deployment's model."""
    return LiteLlmFacts()
