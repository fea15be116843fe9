"""Requests on their way: headers, retries, and errors out of what comes back.

Owns: the HTTP connection.
Must not know: what is asked for.
Invariant: what is not a success is raised; what is not repeatable is sent again only if nothing was done about it.
"""
from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import Any, AsyncIterator, Dict, Mapping, Optional, Sequence, Union

import httpx

from .._generated.async_operations import Content
from .._generated.version import VERSION
from .._retry import Retries, passes, retry_after
from .._types import UNSET, FormFile
from ..errors import APIError, ConnectionFailed, error_of
from .seam import sleep

_BEFORE_SENDING = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class AsyncSender:
    """Sends requests to one server with one key."""

    def __init__(
        self,
        base_url: str,
        api_key: Optional[str],
        timeout: float,
        retries: Retries,
        http_client: Optional[httpx.AsyncClient] = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.retries = retries
        self._timeout = timeout
        self._headers = {"User-Agent": f"modelpress-python/{VERSION}"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # Several uploads and downloads, an event stream and ordinary requests, all at once.
        self._http = http_client or httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)), limits=httpx.Limits(max_connections=32)
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, Any]] = None,
        body: Any = UNSET,
        content: Optional[Content] = None,
        form: Optional[Mapping[str, Any]] = None,
        files: Optional[Sequence[FormFile]] = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """The answer, read to its end."""
        all_headers = self._all_headers(headers)
        if body is not UNSET:
            all_headers["Content-Type"] = "application/json"
            content = json.dumps({key: value for key, value in body.items() if value is not UNSET}).encode()
        # Files and iterators are at their end after the first sending.
        again = content is None or isinstance(content, bytes)
        again = again and all(isinstance(data, bytes) for _, data in files or [])
        failures = 0
        while True:
            try:
                request = self._http.build_request(
                    method,
                    self.base_url + path,
                    params=_known(query),
                    headers=all_headers,
                    content=content,
                    data=_known(form),
                    files=[("file", file) for file in files] if files else None,
                )
                answer = await self._http.send(request)
                if answer.is_success:
                    return answer
                raise _error(answer)
            except (APIError, httpx.TransportError) as error:
                failures += 1
                await self._pause(error, failures, f"{method} {path}", repeatable, again)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is yet to be read; `timeout` is the longest silence in it."""
        answer = await self._begin(method, path, query, self._all_headers(headers), timeout)
        try:
            yield answer
        except httpx.TransportError as error:
            raise _broken(error, f"{method} {path}") from error
        finally:
            await answer.aclose()

    async def _begin(
        self,
        method: str,
        path: str,
        query: Optional[Mapping[str, Any]],
        headers: Mapping[str, str],
        timeout: Optional[float],
    ) -> httpx.Response:
        silence = httpx.Timeout(self._timeout, read=timeout or self._timeout, connect=min(self._timeout, 10.0))
        failures = 0
        while True:
            try:
                request = self._http.build_request(
                    method, self.base_url + path, params=_known(query), headers=headers, timeout=silence
                )
                answer = await self._http.send(request, stream=True)
                if answer.is_success:
                    return answer
                try:
                    await answer.aread()
                finally:
                    await answer.aclose()
                raise _error(answer)
            except (APIError, httpx.TransportError) as error:
                failures += 1
                # Who asks for a stream that there is no room for has another way, and need not wait for it.
                again = not isinstance(error, APIError) or error.code != "overloaded"
                await self._pause(error, failures, f"{method} {path}", True, again)

    async def _pause(
        self, error: Union[APIError, httpx.TransportError], failures: int, what: str, repeatable: bool, again: bool
    ) -> None:
        """Waits before the next sending; raises if there is none."""
        asked = None
        if isinstance(error, APIError):
            worthwhile = again and passes(error, repeatable)
            asked = error.retry_after
        else:
            worthwhile = again and (repeatable or isinstance(error, _BEFORE_SENDING))
        pause = self.retries.pause(failures, asked) if worthwhile else None
        if pause is not None:
            await sleep(pause)
        elif isinstance(error, APIError):
            raise error
        else:
            raise _broken(error, what) from error

    def _all_headers(self, headers: Optional[Mapping[str, Any]]) -> Dict[str, str]:
        return {**self._headers, **{name: str(value) for name, value in (headers or {}).items() if value is not None}}


def _known(pairs: Optional[Mapping[str, Any]]) -> Optional[Dict[str, Any]]:
    known = {name: value for name, value in (pairs or {}).items() if value is not None}
    return known or None


def _broken(error: httpx.TransportError, what: str) -> ConnectionFailed:
    return ConnectionFailed(f"{what}: {str(error) or type(error).__name__}")


def _error(answer: httpx.Response) -> APIError:
    try:
        problem = answer.json()
    except ValueError:
        problem = {"detail": answer.text[:500]}
    return error_of(answer.status_code, problem, answer.headers, retry_after(answer.headers))
