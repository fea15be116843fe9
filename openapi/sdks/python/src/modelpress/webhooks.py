"""Messages that the server sends to webhooks: whether they are its own.

    message = modelpress.webhooks.verify(request.body, request.headers, secret)

Owns: the check, as Standard Webhooks has it.
Must not know: the client.
Invariant: nothing of a message is parsed before its signature is found good.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from typing import Mapping, Sequence, Union

from ._generated.models import WebhookMessage
from .errors import WebhookInvalid

TOLERANCE_SECONDS = 300.0


def verify(
    payload: Union[bytes, str],
    headers: Mapping[str, str],
    secret: Union[str, Sequence[str]],
    *,
    tolerance: float = TOLERANCE_SECONDS,
) -> WebhookMessage:
    """The message, if the server signed it; raises `WebhookInvalid` if not.

    - payload: the request's body, byte for byte.
    - headers: the request's headers; how their names are written does not matter.
    - secret: `whsec_…`, as it was shown when the webhook was made; several while one is being rotated.
    - tolerance: seconds by which its time may be off; what is older may be a message that somebody recorded.

    A message may come twice: drop what you have had by its header `webhook-id`.
    """
    body = payload.encode() if isinstance(payload, str) else bytes(payload)
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise WebhookInvalid(f"the header {missing} is missing") from None
    _check_time(timestamp, tolerance)
    signed = f"{id}.{timestamp}.".encode() + body
    secrets = [secret] if isinstance(secret, str) else secret
    expected = [_signature(one, signed) for one in secrets]
    found = [entry[3:] for entry in signatures.split() if entry.startswith("v1,")]
    # Every pair is compared, in constant time: how long it takes says nothing.
    good = [hmac.compare_digest(mine, theirs.encode()) for mine in expected for theirs in found]
    if not any(good):
        raise WebhookInvalid("no signature of the message is one of these secrets'")
    try:
        return WebhookMessage.from_json(json.loads(body))
    except ValueError as error:
        raise WebhookInvalid(f"the message is signed but is no JSON: {error}") from error


def _check_time(timestamp: str, tolerance: float) -> None:
    # As int() has it, "1_0" and " 10 " would be numbers too.
    if not (timestamp.isascii() and timestamp.isdigit()):
        raise WebhookInvalid("webhook-timestamp is no number of seconds")
    off = time.time() - int(timestamp)
    if abs(off) > tolerance:
        raise WebhookInvalid(f"the message is {abs(off):.0f} s {'old' if off > 0 else 'ahead of time'}")


def _signature(secret: str, signed: bytes) -> bytes:
    text = secret[len("whsec_") :] if secret.startswith("whsec_") else secret
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("the secret is no whsec_ and base64") from error
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
