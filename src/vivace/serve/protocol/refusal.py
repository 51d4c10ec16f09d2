"""The one error of the protocol: what a client is told, and with which status."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not answered with an inference. `message` says what came, what is allowed and what to do.

    `retry_after_seconds` is sent where coming again later can help. `reason` is a word for the metrics. `closes` says
    that the connection cannot be used on, because the rest of the request was not read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        reason: str = "invalid",
        retry_after_seconds: int | None = None,
        closes: bool = False,
    ) -> None:
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.closes = closes
        super().__init__(message)


def too_large(what: str, received: int, allowed: int, advice: str) -> Refusal:
    """413: something is longer than its limit."""
    return Refusal(413, f"{what} has {received} bytes; allowed are {allowed}: {advice}", "too large", closes=True)
