"""What came of a search.

Owns: the front and the best of it, and a table of them.
Must not know: HTTP.
"""
from __future__ import annotations

from html import escape
from typing import List, Optional

from ._generated.models import Point, Search


class SearchResult:
    """Every recipe of a search with its size and loss."""

    def __init__(self, search: Search) -> None:
        self.search = search
        """The search, as the server has it."""

    @property
    def id(self) -> str:
        return self.search.id

    @property
    def status(self) -> str:
        """`queued`, `running`, `succeeded`, `failed` or `cancelled`."""
        return self.search.status

    @property
    def points(self) -> List[Point]:
        """Every recipe, in the order in which they were asked for."""
        return self.search.points

    @property
    def front(self) -> List[Point]:
        """Those that no other beats in size and loss, from the smallest to the one that loses least."""
        by_name = {point.name: point for point in self.points}
        return [by_name[name] for name in self.search.front if name in by_name]

    def best(self, what: str = "balance") -> Optional[Point]:
        """The one that is best for `size`, `quality` or the `balance` of both, or for `speed` where it was timed.

        Of the last two there need be none.
        """
        return next((point for point in self.points if point.best_for == what), None)

    def __repr__(self) -> str:
        names = ", ".join(point.name for point in self.front)
        return f"<Search {self.id} {self.status}: {len(self.points)} recipes, front: {names or 'none yet'}>"

    def _repr_html_(self) -> str:
        head = ("recipe", "status", "bytes", "bits a weight", f"loss ({self.search.loss_metric or '…'})", "")
        rows = "".join(_row(point) for point in self.points)
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        return f"<table><tr>{cells}</tr>{rows}</table>"


def _row(point: Point) -> str:
    result = point.result
    status = f"{point.status}: {point.error.message}" if point.error else point.status
    loss = f"{result.loss:.5g}" if result and result.loss is not None else ""
    sizes = (f"{result.bytes:,}", f"{result.bits_per_weight:.3f}") if result else ("", "")
    mark = " ".join(filter(None, ("front" if point.on_front else "", point.best_for or "")))
    cells = (point.name, status, *sizes, loss, mark)
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
