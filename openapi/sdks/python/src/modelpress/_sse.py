"""Server-sent events, as the HTML standard has them.

Owns: the parser.
Must not know: what the events are about, or where their bytes come from.
Invariant: events are the same however their bytes are cut into pieces.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Optional


@dataclass(frozen=True)
class ServerEvent:
    """One event."""

    id: Optional[str]
    kind: str
    data: str


class Parser:
    """Takes bytes, gives events."""

    def __init__(self) -> None:
        self.retry: Optional[float] = None
        """Seconds to wait before reconnecting, if the server said so."""
        self._pending = b""
        self._kind, self._id = "", None  # type: str, Optional[str]
        self._data: List[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """The events that these bytes complete."""
        self._pending += piece
        # A CR at the end may be half of a CRLF.
        text = self._pending.replace(b"\r\n", b"\n")
        if text.endswith(b"\r"):
            text, held = text[:-1], b"\r"
        else:
            held = b""
        *lines, rest = text.replace(b"\r", b"\n").split(b"\n")
        self._pending = rest + held
        for line in lines:
            event = self._line(line.decode("utf-8", "replace"))
            if event:
                yield event

    def _line(self, line: str) -> Optional[ServerEvent]:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id":
            self._id = value
        elif name == "retry" and value.isdigit():
            self.retry = int(value) / 1000
        return None

    def _dispatch(self) -> Optional[ServerEvent]:
        event = ServerEvent(self._id, self._kind or "message", "\n".join(self._data)) if self._data else None
        self._kind, self._id, self._data = "", None, []
        return event
