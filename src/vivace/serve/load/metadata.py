"""What a server says of its model, asked once before it is driven."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from vivace.core.errors import EnvironmentFault, UsageError

SECONDS = 10.0


def read_metadata(address: str, model: str, token: str | None = None) -> Mapping[str, Any]:
    """The model's metadata, by the Open Inference Protocol. Raises UsageError, EnvironmentFault."""
    if not model:
        raise UsageError(f"--model is missing: give the name of the model that {address} serves")
    url = f"{address.rstrip('/')}/v2/models/{model}"
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urlopen(request, timeout=SECONDS) as answer:
            found: Mapping[str, Any] = json.load(answer)
    except HTTPError as error:
        with error:
            raise UsageError(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from None
    except (URLError, OSError, ValueError) as error:
        raise EnvironmentFault(f"{url} gave no metadata ({error}); give http://HOST:PORT of a running server") from None
    return found
