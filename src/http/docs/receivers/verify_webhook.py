"""Verify what Lutine sends. Python 3.8 or later, standard library only; RSA needs the package `cryptography`.

Every function takes the body as the bytes that arrived. Verify first, parse afterwards: a body that was parsed and
written again is another body. All of them return nothing and raise ValueError when the webhook is not to be trusted.
"""
import base64
import hashlib
import hmac
import json
import time

TOLERANCE_SECONDS = 300


def key_of(secret: str) -> bytes:
    """The 32 bytes behind `whsec_`, which every signature with a shared secret is made with."""
    return base64.b64decode(secret[len("whsec_"):] if secret.startswith("whsec_") else secret)


def verify_standard(secret: str, headers: dict, body: bytes, now: float = None) -> None:
    """Standard Webhooks: the headers webhook-id, webhook-timestamp and webhook-signature (names in lower case)."""
    identity, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise ValueError("the webhook is too old, or its clock is ahead")
    signed = f"{identity}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
    # During a rotation there are two signatures; one that matches is enough.
    for signature in headers["webhook-signature"].split(" "):
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value, expected):
            return
    raise ValueError("no signature matches")


def verify_header_hmac(secret: str, signature: str, body: bytes) -> None:
    """The header X-Signature of the profile `envelope`: sha256={hex} over the body."""
    expected = "sha256=" + hmac.new(key_of(secret), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(signature, expected):
        raise ValueError("the signature does not match")


def verify_signed_envelope(secret: str, body: bytes) -> dict:
    """The profile `signed-envelope` with a shared secret; returns the payload that was signed."""
    message = json.loads(body)
    text = message["payloadAsString"]
    expected = base64.b64encode(hmac.new(key_of(secret), text.encode(), hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(message["signature"], expected):
        raise ValueError("the signature does not match")
    # The text is what was signed; `payload` beside it is for people.
    return json.loads(text)


def verify_signed_envelope_rsa(public_key_pem: bytes, body: bytes) -> dict:
    """The same with RSA; the key is what GET /api/v1/webhooks/public-key answers."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    message = json.loads(body)
    text = message["payloadAsString"]
    key = serialization.load_pem_public_key(public_key_pem)
    try:
        key.verify(base64.b64decode(message["signature"]), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise ValueError("the signature does not match") from None
    return json.loads(text)
