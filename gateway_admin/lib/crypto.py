"""Authenticated encryption, keyed digests and random secrets.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce per message. A key ring holds
several keys so that secrets can be re-encrypted while old ones are still readable; the
key id is stored beside each ciphertext.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
NONCE_BYTES = 12


class DecryptionError(Exception):
    """The ciphertext was altered, moved to another place, or its key is not in the ring."""


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Return nonce + ciphertext + tag; `context` must be presented again to open it."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Undo `seal`, or raise DecryptionError."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as error:
        raise DecryptionError("ciphertext does not open with this key and context") from error


@dataclass(frozen=True)
class KeyRing:
    """Encryption keys by id. The first one encrypts, all of them decrypt."""

    keys: Mapping[str, bytes]

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """Read "<key id>:<base64 of 32 bytes>", comma-separated, newest first."""
        keys: dict[str, bytes] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key_id, _, encoded = part.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError as error:
                raise ValueError(f"encryption key {key_id!r} is not base64") from error
            if not key_id or len(key) != KEY_BYTES:
                raise ValueError("an encryption key is written <key id>:<base64 of 32 bytes>")
            keys[key_id] = key
        if not keys:
            raise ValueError("the encryption key ring is empty")
        return cls(keys)

    @property
    def current_id(self) -> str:
        return next(iter(self.keys))

    def encrypt(self, plaintext: bytes, context: bytes) -> tuple[str, bytes]:
        """Return (key id, sealed bytes) under the current key."""
        return self.current_id, seal(self.keys[self.current_id], plaintext, context)

    def decrypt(self, key_id: str, sealed: bytes, context: bytes) -> bytes:
        if key_id not in self.keys:
            raise DecryptionError(
                f"encryption key {key_id!r} is not in GATEWAY_ENCRYPTION_KEYS; add it back"
            )
        return unseal(self.keys[key_id], sealed, context)


def keyed_digest(key: bytes, text: str) -> str:
    """Hex HMAC-SHA256."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def derive_key(master: bytes, purpose: str) -> bytes:
    """HKDF-SHA256 (RFC 5869): a 32-byte key for one purpose, from which no other follows."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(master)


def random_secret(entropy_bytes: int = 32) -> str:
    """Letters and digits only, so that a double click selects all of it."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    length = -(-entropy_bytes * 8 * 1000 // 5954)  # log2(62) = 5.954 bits a sign
    return "".join(secrets.choice(alphabet) for _ in range(length))


def public_id(length: int = 10) -> str:
    """A short random id that may be shown and logged; lower case and digits."""
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"  # without signs that are misread
    return "".join(secrets.choice(alphabet) for _ in range(length))


def mask(secret: str) -> str:
    """The last four signs of a secret that is long enough to spare them."""
    return secret[-4:] if len(secret) >= 12 else ""
