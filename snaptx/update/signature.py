"""The one door to ``cryptography``: Ed25519 over exact bytes (RFC 8032).

Keys are PEM, as ``openssl genpkey -algorithm ed25519`` and ``openssl pkey
-pubout`` write them; a signature is its 64 bytes, as ``openssl pkeyutl -sign
-rawin`` writes it.  So nobody needs snaptx to make one, and a key that never
leaves another machine can be used.  The library is loaded with the first call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snaptx.errors import SnaptxError, TrustError, UsageError

BYTES = 64
"""The length of a signature."""

RECIPE = "openssl genpkey -algorithm ed25519 -out updates.key"


def verify(data: bytes, signature: bytes, keys: Mapping[str, bytes]) -> str:
    """Return the name of the key, of ``keys`` by name, whose signature of ``data`` it is.

    Raises:
        TrustError: it is of none of them, or one of them is no public key.
    """
    from cryptography.exceptions import InvalidSignature

    for name, text in keys.items():
        try:
            _public(name, text).verify(signature, data)
            return name
        except InvalidSignature:
            continue
    known = ", ".join(keys) or "none"
    raise TrustError(
        f"the signature is not that of a trusted key (trusted: {known})",
        hint="put its maker's public key into /etc/snaptx/keys.d/NAME.pub, if you trust them",
    )


def sign(data: bytes, key: bytes) -> bytes:
    """Return the signature of ``data`` by a private key.

    Raises:
        UsageError: it is no Ed25519 key, or encrypted.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = _load(load_pem_private_key, key, None)
    except TypeError as error:
        hint = "sign without it: snaptx publish DIR, then as it says"
        raise UsageError("the key is encrypted", hint=hint) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError("the key is no private Ed25519 key in PEM", hint=f"to make one: {RECIPE}")
    return private.sign(data)


def _public(name: str, text: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = _load(load_pem_public_key, text)
    if not isinstance(key, Ed25519PublicKey):
        hint = "to make one: openssl pkey -in updates.key -pubout -out updates.pub"
        raise TrustError(f"{name} is no public Ed25519 key in PEM", hint=hint)
    return key


def _load(loader: Any, *given: Any) -> Any:
    """Return what ``loader`` makes of it, None if it is no key that the library knows."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return loader(*given)
    except (ValueError, UnsupportedAlgorithm):
        return None


def require() -> None:
    """Refuse to go on without the library.

    Raises:
        SnaptxError: it is not installed.
    """
    try:
        import cryptography.exceptions  # noqa: F401
    except ImportError as error:
        hint = "install the package python3-cryptography"
        raise SnaptxError("the Python library cryptography is not installed", hint=hint) from error
