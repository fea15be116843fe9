"""When a request is sent again, and after which pause.

Owns: the schedule, which answers pass, how `Retry-After` is read.
Must not know: how requests are sent or how one waits.
"""
from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Mapping, Optional

from .errors import APIError

# The server refused before it did anything, so that any request may be sent again.
_NOTHING_DONE = {"rate_limited", "overloaded", "idempotency_running"}
_PASSING = {502, 503, 504}


@dataclass(frozen=True)
class Retries:
    """How often and after which pauses a request is sent again."""

    attempts: int = 5
    """Sendings in all; 1 is no retries."""
    first_pause: float = 0.5
    """Seconds before the second sending; they double each time, up to `longest_pause`."""
    longest_pause: float = 20.0
    longest_asked: float = 120.0
    """A server that asks for a longer pause (`Retry-After`) is not waited for: its answer is raised."""

    def pause(self, failures: int, asked: Optional[float] = None) -> Optional[float]:
        """Seconds to wait after so many failures; nothing if it is time to give up."""
        if failures >= self.attempts or (asked is not None and asked > self.longest_asked):
            return None
        backoff: float = min(self.longest_pause, self.first_pause * 2 ** (failures - 1))
        # Clients that failed together shall not come back together.
        jittered = backoff * random.uniform(0.5, 1.0)
        return jittered if asked is None else asked + 0.1 * jittered


def passes(error: APIError, repeatable: bool) -> bool:
    """True of an answer that may be another one next time."""
    if error.code in _NOTHING_DONE:
        return True
    if error.status == 429:
        # A quota stays used up until somebody deletes something; a proxy's 429 has no code of ours.
        return error.code == "http_429"
    return repeatable and error.status in _PASSING


def retry_after(headers: Mapping[str, str]) -> Optional[float]:
    """The pause that the server asks for, in seconds."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
