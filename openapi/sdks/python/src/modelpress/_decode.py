"""From JSON to the fields of dataclasses.

Owns: times, and what a missing field comes to.
Must not know: which classes there are.
"""
from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any, Callable, Optional, TypeVar

from .errors import UnexpectedAnswer

T = TypeVar("T")

# RFC 3339; the fraction has as many digits as the server likes, which Pythons before 3.11 do not read.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))")


def required(kind: str, value: Any, key: str) -> Any:
    """A field that every version of the server sends."""
    if not isinstance(value, dict) or key not in value:
        raise UnexpectedAnswer(f"the answer is no {kind}: it has no {key!r}; is this a modelpress server?")
    return value[key]


def optional(value: Any, read: Callable[[Any], T]) -> Optional[T]:
    return None if value is None else read(value)


def parse_time(text: str) -> datetime:
    """A time with its zone."""
    found = _TIME.fullmatch(text)
    if not found:
        raise UnexpectedAnswer(f"{text!r} is no time as RFC 3339 writes it")
    day, clock, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    zone = timezone(-offset if sign == "-" else offset)
    micros = int(((fraction or "") + "000000")[:6])
    return datetime.fromisoformat(f"{day}T{clock}").replace(microsecond=micros, tzinfo=zone)
