"""`_generated/models.py`: a dataclass for each object that is answered, a TypedDict for parts of what is sent.

Owns: the text of that file.
Must not know: operations.
"""
from __future__ import annotations

from typing import Any

from document import ALIASES, PAGE, Api, annotation, class_name, prose, reader, snake, target, without_null

HEAD = '''"""What the server answers, as dataclasses; parts of what it is sent, as dictionaries.

A field that this version does not know is left alone: `raw` has the whole object as it came.
"""
# ruff: noqa: E501
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, TypedDict, TypeVar

from .._decode import optional, parse_time, required

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of a list."""

    data: List[T]
    """The items."""
    has_more: bool
    """Whether another page follows."""
    next_cursor: Optional[str]
    """Pass it as `after` to get the next page."""
    raw: Mapping[str, Any] = field(repr=False, compare=False)
    """The page as it came."""

    @classmethod
    def from_json(cls, value: Any, item: Callable[[Any], T]) -> Page[T]:
        data = [item(entry) for entry in required("Page", value, "data")]
        return cls(data, bool(value.get("has_more")), value.get("next_cursor"), value)
'''


def render(api: Api) -> str:
    sent = reachable(api)
    parts = [HEAD]
    for name, schema in sorted(api.schemas.items()):
        if name in ALIASES or PAGE.match(name) or name.endswith("Form"):
            continue
        if name in sent:
            parts.append(dictionary(name, schema))
        elif not name.endswith(("In", "Patch")):
            parts.extend(classes(class_name(name), schema))
    return "\n\n".join(part.strip("\n") + "\n" for part in parts)


def reachable(api: Api) -> set[str]:
    """Objects inside of what is sent; what is sent itself is the arguments of an operation."""
    found: set[str] = set()
    for name, schema in api.schemas.items():
        if name.endswith(("In", "Patch")):
            for prop in schema.get("properties", {}).values():
                inner, _ = without_null(prop)
                other = target(inner.get("items", inner))
                if other and other not in ALIASES:
                    found.add(other)
    return found


def dictionary(name: str, schema: dict[str, Any]) -> str:
    lines = [f"class {class_name(name)}(TypedDict):", f'    """{prose(schema["description"])}"""', ""]
    needed = schema.get("required", [])
    assert set(needed) == set(schema["properties"]), f"{name}: only dictionaries whose keys are all needed"
    for key, prop in schema["properties"].items():
        lines += [f"    {key}: {annotation(prop)}", f'    """{prose(prop.get("description", ""))}"""']
    return "\n".join(lines)


def classes(name: str, schema: dict[str, Any]) -> list[str]:
    """The class, after those of the objects spelled out inside of it."""
    before: list[str] = []
    lines = ["@dataclass(frozen=True)", f"class {name}:", docstring(schema, 4), ""]
    reads = []
    needed = schema.get("required", [])
    for key, prop in schema["properties"].items():
        if prop.get("type") == "object" and "properties" in prop:
            inner = name + "".join(word.capitalize() for word in key.split("_"))
            before += classes(inner, prop)
            kind, read = inner, f"{inner}.from_json"
        else:
            kind, read = annotation(prop), reader(prop)
        if key not in needed and kind != "Any" and not kind.startswith("Optional"):
            kind = f"Optional[{kind}]"
        lines += [f"    {snake(key)}: {kind}", docstring(prop, 4)]
        reads.append(f"            {snake(key)}={reading(name, key, kind, read, key in needed)},")
    lines += [
        "    raw: Mapping[str, Any] = field(repr=False, compare=False)",
        '    """The object as it came, with fields that this version does not know."""',
        "",
        "    @classmethod",
        f"    def from_json(cls, value: Any) -> {name}:",
        "        return cls(",
        *reads,
        "            raw=value,",
        "        )",
    ]
    return [*before, "\n".join(lines)]


def reading(name: str, key: str, kind: str, read: Any, needed: bool) -> str:
    if kind.startswith("Optional") or not needed:
        got = f'value.get("{key}")'
        return f"optional({got}, {read})" if read else got
    got = f'required("{name}", value, "{key}")'
    if not read:
        return got
    if read.startswith("lambda items: "):
        return read.split(": ", 1)[1].replace("in items]", f"in {got}]")
    return f"{read}({got})"


def docstring(schema: dict[str, Any], indent: int) -> str:
    pad = " " * indent
    text = prose(schema.get("description", "")).replace("\n", f"\n{pad}")
    return f'{pad}"""{text}"""'
