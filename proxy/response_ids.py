"""Ids of responses: sealed for clients as LiteLLM seals them, on whichever lane they were made.

    provider's id -> what LiteLLM makes of it, which names the deployment -> sealed

The id that a client is given tells which deployment keeps the conversation, so that a
request which continues it finds its way, and a client cannot make one up. Both lanes open
what the other one sealed; tests/proxy/test_lane_responses.py shows it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

_PREFIX = "resp_"
_INNER = re.compile(
    r"litellm:custom_llm_provider:(?P<provider>[^;]*);model_id:(?P<deployment>[^;]+);"
    r"response_id:(?P<native>.+)"
)
_OUTER = re.compile(
    r"litellm_proxy:responses_api:response_id:resp_(?P<inner>[A-Za-z0-9+/=]+);user_id:;team_id:"
)


class ResponseIds:
    """Seals and opens ids with the key that LiteLLM uses."""

    def __init__(self, salt_key: str) -> None:
        self._box = SecretBox(hashlib.sha256(salt_key.encode()).digest())

    def seal(self, provider: str, deployment_id: str, native: str) -> str:
        """The id that a client is given for a response."""
        named = f"litellm:custom_llm_provider:{provider};model_id:{deployment_id};"
        inner = base64.b64encode(f"{named}response_id:{native}".encode()).decode()
        owned = f"litellm_proxy:responses_api:response_id:{_PREFIX}{inner};user_id:;team_id:"
        return _PREFIX + base64.urlsafe_b64encode(self._box.encrypt(owned.encode())).decode()

    def open(self, sealed: str) -> tuple[str, str] | None:
        """Deployment and the provider's id; None when it is none of ours."""
        try:
            text = sealed.removeprefix(_PREFIX)
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
            outer = _OUTER.fullmatch(self._box.decrypt(raw).decode())
            if outer is None:
                return None
            inner = _INNER.fullmatch(base64.b64decode(outer["inner"]).decode())
        except (binascii.Error, ValueError, CryptoError):
            return None
        return (inner["deployment"], inner["native"]) if inner is not None else None

    def sealer(self, provider: str, deployment_id: str) -> Callable[[str], str]:
        """Seals the ids of one answer: the same one each time it is told."""
        known: dict[str, str] = {}

        def seal(native: str) -> str:
            if native not in known:
                known[native] = self.seal(provider, deployment_id, native)
            return known[native]

        return seal
