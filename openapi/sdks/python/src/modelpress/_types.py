"""Words that generated and hand-written code share.

Owns: what a recipe is to this package, the mark of an argument that was not given, how names go into paths.
Must not know: HTTP.
"""
from __future__ import annotations

import enum
import uuid
from typing import IO, Any, Dict, Tuple, Union
from urllib.parse import quote

Recipe = Union[str, Dict[str, Any]]
"""The name of a preset (`"Q4_K_M"`), or an object: `{"preset": "W4A16", "options": {"group_size": 64}}`.

`client.presets()` lists the names, `client.techniques()` each technique's options as JSON Schema; the server's README
has the whole language.
"""

FormFile = Tuple[str, Union[bytes, IO[bytes]]]
"""A file of a form: its path in the model, and its bytes."""


class Unset(enum.Enum):
    """An argument that was not given, where `None` means something."""

    UNSET = enum.auto()

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset.UNSET


def escaped(segment: str) -> str:
    """A name as one segment of a path."""
    return quote(segment, safe="")


def escaped_path(name: str) -> str:
    """A file's name at the end of a path; its slashes stay."""
    return quote(name, safe="/")


def fresh_key() -> str:
    """An Idempotency-Key of a request that nobody made before."""
    return uuid.uuid4().hex
