"""Whether a dataset holds an open file, whose place threads that read samples would move under each other."""

from __future__ import annotations

import io
from typing import Any

MOST_OBJECTS = 10_000


def open_file_of(data: Any) -> str | None:
    """What open file a dataset's state holds, such as "its 'file' (BufferedReader)"; None where none is seen.

    Looks into objects, lists and dictionaries. What an object in C keeps open is not seen. Archives of `zipfile` are
    passed over: they lock their file themselves.

    >>> import types
    >>> open_file_of(types.SimpleNamespace(file=io.BytesIO(), size=3))
    "its 'file' (BytesIO)"
    """
    waiting, seen = [("", data)], set[int]()
    while waiting and len(seen) < MOST_OBJECTS:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, io.IOBase):
            return f"its {name!r} ({type(value).__name__})"
        if isinstance(value, dict):
            waiting += [(name or str(key), part) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(name, part) for part in value[:MOST_OBJECTS]]
        elif hasattr(value, "__dict__") and not isinstance(value, type) and type(value).__module__ != "zipfile":
            waiting += [(name or key, part) for key, part in vars(value).items()]
    return None
