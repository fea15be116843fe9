"""`_generated/async_operations.py`: a method for each operation.

Owns: the text of that file; the sync one follows from it.
Must not know: how requests are sent.
"""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Optional

import schemas
from document import Api, annotation, plain, prose, reader, snake, target, without_null

JSON = "application/json"
FORM = "multipart/form-data"
METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
SAFE = ("get", "head", "options", "put", "delete")
# Requests whose second sending changes nothing, though their method promises nothing.
SAFE_BY_MEANING = {"createPlan", "cancelJob", "cancelSearch"}

HEAD = '''"""Every operation of the API, under its name in openapi.json."""
# ruff: noqa: E501
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, AsyncIterable, Dict, List, Mapping, Optional, Protocol, Sequence, Union

import httpx

from .._types import UNSET, FormFile, Recipe, Unset, escaped, escaped_path, fresh_key
from .models import (
{names}
)

Content = Union[bytes, AsyncIterable[bytes]]


class AsyncTransport(Protocol):
    """What sends requests: retries those that are `repeatable`, raises what is not a success."""

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
    ) -> httpx.Response: ...

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Optional[Mapping[str, Any]] = None,
        headers: Optional[Mapping[str, Any]] = None,
        timeout: Optional[float] = None,
    ) -> AbstractAsyncContextManager[httpx.Response]: ...


class AsyncOperations:
    """The API as it is; `AsyncClient` has what is convenient."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
'''


@dataclass
class Method:
    """A method in the making."""

    name: str
    operation: dict[str, Any]
    verb: str
    path: str
    positional: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    sends: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def render(api: Api) -> str:
    methods: list[str] = []
    for path, item in sorted(api.paths.items()):
        for verb in METHODS:
            if verb in item:
                methods += variants(api, path, verb, item[verb])
    body = "\n\n".join(methods)
    classes = re.findall(r"^(?:class) (\w+)", schemas.render(api), re.M)
    used = sorted(name for name in classes if re.search(rf"\b{name}\b", body))
    names = "\n".join(f"    {name}," for name in used)
    return f"{HEAD.replace('{names}', names)}\n{body}\n"


def variants(api: Api, path: str, verb: str, operation: dict[str, Any]) -> list[str]:
    """One method for each way to send the body, and one for a stream of what comes back."""
    name = snake(operation["operationId"])
    contents = operation.get("requestBody", {}).get("content", {})
    made = []
    raw = [kind for kind in contents if kind not in (JSON, FORM)]
    if JSON in contents:
        made.append(method(api, name, path, verb, operation, JSON))
    if FORM in contents:
        made.append(method(api, f"{name}_form", path, verb, operation, FORM))
    if raw:
        only = len(raw) == len(contents)
        made.append(method(api, name if only else f"{name}_raw", path, verb, operation, raw[0], raw))
    if not contents:
        made.append(method(api, name, path, verb, operation, None))
    if "text/event-stream" in answers(operation):
        made.append(method(api, f"{name}_stream", path, verb, operation, None, accept="text/event-stream"))
    return made


def answers(operation: dict[str, Any]) -> dict[str, Any]:
    """What a success may bring, by type."""
    found: dict[str, Any] = {}
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            found.update(response.get("content", {}))
    return found


def method(
    api: Api,
    name: str,
    path: str,
    verb: str,
    operation: dict[str, Any],
    content: Optional[str],
    raw: Optional[list[str]] = None,
    accept: Optional[str] = None,
) -> str:
    it = Method(name, operation, verb, path)
    keyed = arguments(it, accept)
    if content == JSON:
        json_body(api, it)
    elif content == FORM:
        it.named.append("files: Sequence[FormFile]")
        it.named.append("name: Optional[str] = None")
        it.named.append("metadata: Optional[str] = None")
        it.sends.append('form={"name": name, "metadata": metadata}')
        it.sends.append("files=files")
    elif content:
        raw_body(it, raw or [content])
    repeatable = verb in SAFE or operation["operationId"] in SAFE_BY_MEANING or keyed
    return text_of(it, repeatable, accept)


def arguments(it: Method, accept: Optional[str]) -> bool:
    """Path, query and headers; true if the request carries a key that makes it safe to send again."""
    queries, headers, keyed = [], [], False
    for parameter in it.operation.get("parameters", []):
        wire, arg = parameter["name"], snake(parameter["name"])
        if accept and wire == "limit":
            continue  # a stream has no pages
        kind, _ = without_null(parameter["schema"])
        if parameter["in"] == "path":
            it.positional.append(f"{arg}: {plain(kind)}")
        elif parameter.get("required"):
            it.named.append(f"{arg}: {plain(kind)}")
            headers.append(f'"{wire}": {arg}')
        else:
            it.named.append(f"{arg}: Optional[{plain(kind)}] = None")
            if wire == "Idempotency-Key":
                keyed = True
                headers.append(f'"{wire}": {arg} or fresh_key()')
            else:
                (queries if parameter["in"] == "query" else headers).append(f'"{wire}": {arg}')
    if accept:
        headers.append(f'"Accept": "{accept}"')
    if queries:
        it.sends.append(f"query={{{', '.join(queries)}}}")
    if headers:
        it.sends.append(f"headers={{{', '.join(headers)}}}")
    return keyed


def json_body(api: Api, it: Method) -> None:
    body = it.operation["requestBody"]
    schema, _ = without_null(body["content"][JSON]["schema"])
    schema = api.schemas[target(schema) or ""]
    needed = schema.get("required", [])
    pairs, needed_args, other_args = [], [], []
    for key, prop in schema["properties"].items():
        kind, arg = annotation(prop), snake(key)
        pairs.append(f'"{key}": {arg}')
        if key in needed:
            needed_args.append(f"{arg}: {kind}")
        else:
            other_args.append(f"{arg}: {'Any' if kind == 'Any' else f'Union[{kind}, Unset]'} = UNSET")
        it.notes.append(f"{arg}: {' '.join(prose(prop.get('description', '')).split())}")
    it.named[:0] = needed_args + other_args
    it.sends.append(f"body={{{', '.join(pairs)}}}")


def raw_body(it: Method, kinds: list[str]) -> None:
    it.positional.append("content: Content")
    it.named.append(f'content_type: str = "{kinds[-1]}"')
    for at, sent in enumerate(it.sends):
        if sent.startswith("headers={"):
            it.sends[at] = sent.replace("headers={", 'headers={"Content-Type": content_type, ', 1)
            break
    else:
        it.sends.append('headers={"Content-Type": content_type}')
    it.sends.append("content=content")


def text_of(it: Method, repeatable: bool, accept: Optional[str]) -> str:
    kinds = answers(it.operation)
    streams = bool(accept) or any(kind in kinds for kind in ("application/octet-stream", "application/x-tar"))
    returns, last = returned(it, kinds, streams)
    arguments = ["self", *it.positional, *(["*", *it.named] if it.named else [])]
    head = "def" if streams else "async def"
    lines = [f"    {head} {it.name}(", *(f"        {argument}," for argument in arguments), f"    ) -> {returns}:"]
    lines += documentation(it)
    call = f'"{it.verb.upper()}", {path_expression(it.path)}'
    sends = it.sends + (["repeatable=True"] if repeatable and not streams else [])
    request = ", ".join([call, *sends])
    if streams:
        return "\n".join([*lines, f"        return self._transport.stream({request})"])
    assigned = "answer = " if "answer" in last else ""
    lines.append(f"        {assigned}await self._transport.send({request})")
    return "\n".join([*lines, *([f"        {last}"] if last else [])])


def returned(it: Method, kinds: dict[str, Any], streams: bool) -> tuple[str, str]:
    """The type of the answer and the line that makes it."""
    if streams:
        return "AbstractAsyncContextManager[httpx.Response]", ""
    if JSON in kinds:
        schema = kinds[JSON]["schema"]
        read = reader(schema)
        if read and read.startswith("lambda value: "):
            return annotation(schema), f"return {read.split(': ', 1)[1].replace('(value', '(answer.json()')}"
        return annotation(schema), f"return {read}(answer.json())" if read else "return answer.json()"
    if kinds:
        return "str", "return answer.text"
    success = next(r for status, r in it.operation["responses"].items() if status.startswith("2"))
    if success.get("headers") or it.name == "override_upload_method":
        return "httpx.Headers", "return answer.headers"
    return "None", ""


def path_expression(path: str) -> str:
    if "{" not in path:
        return f'"{path}"'
    inner = re.sub(r"\{(\w+)\}", r"{escaped(\1)}", path).replace("{escaped(path)}", "{escaped_path(path)}")
    return f'f"{inner}"'


def documentation(it: Method) -> list[str]:
    summary = prose(it.operation["summary"])
    lines = [f'        """{summary}.', ""]
    description = prose(it.operation.get("description", ""))
    if description:
        lines += [f"        {line}".rstrip() for line in description.split("\n")] + [""]
    if it.notes:
        lines += [*(f"        - {note}" for note in it.notes), ""]
    scopes = [scope for need in it.operation.get("security", []) for scope in need.get("key", [])]
    needs = f" Needs `{'`, `'.join(scopes)}`." if scopes else ""
    return [*lines, f"        `{it.verb.upper()} {it.path}`.{needs}", '        """']
