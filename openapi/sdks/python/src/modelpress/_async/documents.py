"""Reports and analyses, with their pages on the server.

Owns: fetching the page.
Must not know: how figures are shown.
"""
from __future__ import annotations

from typing import Any, Mapping

from .._generated.async_operations import AsyncOperations
from ..report import AnalysisView, ReportView


class AsyncReport(ReportView):
    """What a job changed and what it cost."""

    def __init__(self, raw: Mapping[str, Any], job: str, operations: AsyncOperations) -> None:
        super().__init__(raw, job)
        self._operations = operations

    async def html(self) -> str:
        """The report as one page without scripts, as the server draws it."""
        return await self._operations.get_job_report_html(self.job)


class AsyncAnalysis(AnalysisView):
    """What a model's weights are, and what each preset would make of them."""

    def __init__(self, raw: Mapping[str, Any], job: str, operations: AsyncOperations) -> None:
        super().__init__(raw, job)
        self._operations = operations

    async def html(self) -> str:
        """The analysis as one page without scripts, as the server draws it."""
        return await self._operations.get_job_report_html(self.job)
