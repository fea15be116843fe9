"""Everything that this package raises.

Owns: the hierarchy, and how a problem document becomes one of its classes.
Must not know: how requests are sent.
Invariant: `except ModelpressError` catches whatever goes wrong outside of the caller's own code and files; each error
survives being pickled, as pools and workflow engines do.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Type

if TYPE_CHECKING:
    from ._generated.models import Job, Model, Search


class ModelpressError(Exception):
    """Anything that went wrong."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ConnectionFailed(ModelpressError):
    """The server could not be reached, or the connection broke and broke again."""


class UnexpectedAnswer(ModelpressError):
    """An answer that no modelpress server gives."""


class DigestMismatch(ModelpressError):
    """Bytes that arrived are not those that were sent."""


class WaitTimeout(ModelpressError, TimeoutError):
    """What was waited for is not over yet. It goes on."""


class PackedStreamInvalid(ModelpressError, ValueError):
    """An entropy coded stream that is damaged, or of a later version."""


class PackedFileInvalid(ModelpressError, ValueError):
    """A packed file that is damaged, of a later version, or with a type that numpy has nothing like."""


class UploadInvalid(ModelpressError, ValueError):
    """A folder or file that cannot be uploaded as a model or dataset."""


@dataclass(frozen=True)
class FieldProblem:
    """One field or file that is wrong."""

    pointer: str
    """JSON pointer into what was sent, e.g. `/recipe/stages/0/options/group_size`."""
    code: str
    """Stable name of what is wrong."""
    detail: str
    """What is wrong and what would be right."""


class APIError(ModelpressError):
    """The server refused a request, or failed at it."""

    def __init__(
        self,
        status: int,
        problem: Mapping[str, Any],
        request_id: Optional[str] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(status, problem, request_id, retry_after)
        self.status = status
        """The HTTP status."""
        self.code = str(problem.get("code") or f"http_{status}")
        """Stable name of the kind of problem."""
        self.title = str(problem.get("title") or "")
        self.detail = str(problem.get("detail") or "")
        """What happened this time."""
        self.request_id: Optional[str] = problem.get("request_id") or request_id
        """Names the request in the server's log."""
        self.errors: List[FieldProblem] = [_field(entry) for entry in problem.get("errors") or []]
        """Each wrong field or file."""
        self.retry_after = retry_after
        """Seconds after which the server asks to come back, if it does."""
        self.problem: Mapping[str, Any] = problem
        """The problem document as it came."""

    def __str__(self) -> str:
        lines = [f"{self.code} ({self.status}): {self.detail or self.title or 'no reason given'}"]
        lines += [f"  {error.pointer}: {error.detail} [{error.code}]" for error in self.errors]
        if self.request_id:
            lines.append(f"  request {self.request_id}")
        return "\n".join(lines)


class BadRequest(APIError):
    """400: not a request that this server reads."""


class Unauthenticated(APIError):
    """401: there is no key, or none that opens anything."""


class PermissionDenied(APIError):
    """403: the key, or the operator, does not allow this."""


class NotFound(APIError):
    """404: nothing is there, or it is another tenant's. 410: it was there once."""


class Conflict(APIError):
    """409: the object is in another state."""


class InvalidRequest(APIError):
    """422: fields are wrong, the model or dataset cannot be read, or the recipe cannot work; see `errors`."""


class RecipeRefused(InvalidRequest):
    """422 `recipe_refused`: the recipe cannot be applied to this model; `errors` say where and why."""


class TooManyRequests(APIError):
    """429: a key asks too often, or a quota is used up."""


class ServerError(APIError):
    """5xx: the server failed, or cannot take this now."""


_BY_STATUS: Dict[int, Type[APIError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    422: InvalidRequest,
    429: TooManyRequests,
}


def error_of(
    status: int, problem: Any, headers: Mapping[str, str], retry_after: Optional[float] = None
) -> APIError:
    """The error for an answer that is not a success."""
    known = problem if isinstance(problem, dict) else {}
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    if known.get("code") == "recipe_refused":
        kind = RecipeRefused
    return kind(status, known, headers.get("x-request-id"), retry_after)


def _field(entry: Mapping[str, Any]) -> FieldProblem:
    return FieldProblem(str(entry.get("pointer", "")), str(entry.get("code", "")), str(entry.get("detail", "")))


class JobFailed(ModelpressError):
    """A job ended in another way than success."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job
        """The job; where it missed a quality gate, it has a report even so."""
        self.code = job.error.code if job.error else job.status

    def __str__(self) -> str:
        reason = f": {self.job.error.message} [{self.code}]" if self.job.error else ""
        return f"job {self.job.id} {_ended(self.job.status)}{reason}"


class SearchFailed(ModelpressError):
    """A search in which no recipe succeeded."""

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.search = search
        """The search; its points say why."""

    def __str__(self) -> str:
        lines = [f"search {self.search.id} {_ended(self.search.status)}"]
        reasons = [(point.name, point.error) for point in self.search.points]
        lines += [f"  {name}: {error.message} [{error.code}]" for name, error in reasons if error]
        return "\n".join(lines)


class PullFailed(ModelpressError):
    """A model that could not be brought from its source."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.model = model
        error = model.pull.error if model.pull else None
        self.code = error.code if error else model.status
        self.message = error.message if error else ""

    def __str__(self) -> str:
        return f"model {self.model.id} could not be brought: {self.message} [{self.code}]"


class WebhookInvalid(ModelpressError, ValueError):
    """A message that the server did not sign, or signed too long ago."""


def _ended(status: str) -> str:
    return "was cancelled" if status == "cancelled" else status
