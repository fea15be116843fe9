"""modelpress: model compression as a service.

    from modelpress import Client

    result = Client().compress("./model", recipe="Q4_K_M", out="./small")
    print(result.report)
"""
from __future__ import annotations

from . import webhooks
from ._async.client import AsyncClient
from ._async.compress import AsyncResult
from ._async.documents import AsyncAnalysis, AsyncReport
from ._files import LocalFile
from ._generated.models import (
    Artifact,
    Dataset,
    Event,
    File,
    Job,
    Model,
    Page,
    Plan,
    Point,
    Search,
    Tensor,
    Upload,
    WebhookMessage,
)
from ._generated.version import VERSION as __version__
from ._progress import Progress, ProgressUpdate
from ._retry import Retries
from ._sync.client import Client
from ._sync.compress import Result
from ._sync.documents import Analysis, Report
from ._types import UNSET, Recipe
from .errors import (
    APIError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    DigestMismatch,
    FieldProblem,
    InvalidRequest,
    JobFailed,
    ModelpressError,
    NotFound,
    PackedFileInvalid,
    PackedStreamInvalid,
    PermissionDenied,
    PullFailed,
    RecipeRefused,
    SearchFailed,
    ServerError,
    TooManyRequests,
    Unauthenticated,
    UnexpectedAnswer,
    UploadInvalid,
    WaitTimeout,
    WebhookInvalid,
)
from .search import SearchResult

__all__ = [
    "APIError", "Analysis", "Artifact", "AsyncAnalysis", "AsyncClient", "AsyncReport", "AsyncResult", "BadRequest",
    "Client", "Conflict", "ConnectionFailed", "Dataset", "DigestMismatch", "Event", "FieldProblem", "File",
    "InvalidRequest", "Job", "JobFailed", "LocalFile", "Model", "ModelpressError", "NotFound", "PackedFileInvalid",
    "PackedStreamInvalid", "Page", "PermissionDenied", "Plan", "Point", "Progress", "ProgressUpdate", "PullFailed",
    "Recipe", "RecipeRefused", "Report", "Result", "Retries", "Search", "SearchFailed", "SearchResult", "ServerError",
    "Tensor", "TooManyRequests", "UNSET", "Unauthenticated", "UnexpectedAnswer", "Upload", "UploadInvalid",
    "WaitTimeout", "WebhookInvalid", "WebhookMessage", "__version__", "webhooks",
]  # fmt: skip
