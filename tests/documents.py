"""Reads the project's documents: code blocks, links, commands. Asserts nothing."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

FENCE = re.compile(
    r"(?:<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)[^)]*\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is an HTML comment on the line before it, such as `not run: needs a card`."""

    language: str
    code: str
    mark: str


def blocks(page: Path, language: str) -> list[Block]:
    """The page's blocks in one language, in order, without those marked as not run."""
    found = [
        Block(match["language"], match["code"], match["mark"] or "")
        for match in FENCE.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.language == language and not block.mark.startswith("not run")]


def script(page: Path) -> str:
    """All of the page's Python blocks as one program."""
    return "\n".join(block.code for block in blocks(page, "python"))


def commands(page: Path) -> list[list[str]]:
    """Every command line of the page's bash blocks, split into words, comments left out."""
    lines = [line for block in blocks(page, "bash") for line in block.code.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command]


def broken_links(page: Path) -> list[str]:
    """Links to files that are not there. Links to the web are left alone."""
    targets = [match["target"] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    return [t for t in targets if "://" not in t and not (page.parent / t).exists()]
