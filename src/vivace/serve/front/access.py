"""Who may ask: whoever has the token, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from vivace.serve.protocol.refusal import Refusal


def check_token(token: str | None, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a request without `Authorization: Bearer TOKEN`, where there is a token."""
    if token is None:
        return
    kind, _, given = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), token.encode()):
        raise Refusal(401, "a token is needed: send it as 'Authorization: Bearer TOKEN'", "unauthorized")
