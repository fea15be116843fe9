"""The OpenAPI document, and how its names and types are spelled in Python.

Owns: names of classes and arguments, types, the expressions that read JSON.
Must not know: what the generated files look like.
"""
from __future__ import annotations

import json
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

# Names that would say too little, or something else, beside the hand-written classes.
RENAMED = {"ResultOut": "PointResult", "StageOut": "JobStage"}
# Written by hand in _types.py: a text or an object whose options differ from technique to technique.
ALIASES = {"Recipe": "Recipe", "Token": "str"}
PAGE = re.compile(r"^PageOut_(\w+)$")


@dataclass(frozen=True)
class Api:
    """The document, with its parts at hand."""

    version: str
    schemas: dict[str, Any]
    paths: dict[str, Any]


def read(path: Path) -> Api:
    document = json.loads(path.read_text("utf-8"))
    return Api(document["info"]["version"], document["components"]["schemas"], document["paths"])


def target(schema: dict[str, Any]) -> Optional[str]:
    """The schema that a reference names."""
    return schema["$ref"].rsplit("/", 1)[1] if "$ref" in schema else None


def class_name(schema: str) -> str:
    """`JobOut` is a job; what goes in keeps its `In`."""
    if schema in ALIASES:
        return ALIASES[schema]
    return RENAMED.get(schema, schema[:-3] if schema.endswith("Out") else schema)


def snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()
    return f"{words}_" if keyword.iskeyword(words) else words


def without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema of what is there, and whether there may be nothing."""
    choices = schema.get("oneOf") or schema.get("anyOf")
    if choices:
        real = [one for one in choices if one.get("type") != "null"]
        assert len(real) == 1, f"a choice of several types: {schema}"
        return real[0], len(real) < len(choices)
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds:
        rest = [kind for kind in kinds if kind != "null"]
        return {**schema, "type": rest[0] if len(rest) == 1 else rest}, True
    return schema, False


def annotation(schema: dict[str, Any]) -> str:
    """The type of a value."""
    inner, nullable = without_null(schema)
    text = plain(inner)
    return f"Optional[{text}]" if nullable and text != "Any" else text


def plain(schema: dict[str, Any]) -> str:
    name = target(schema)
    if name:
        page = PAGE.match(name)
        return f"Page[{class_name(page.group(1))}]" if page else class_name(name)
    kind = schema.get("type")
    if isinstance(kind, list):
        # What may be of several types is for whoever reads it.
        return "Any"
    if kind == "string":
        return "datetime" if schema.get("format") == "date-time" else "str"
    if kind == "array":
        return f"List[{annotation(schema['items'])}]"
    if kind == "object":
        # Free-form where the document says no more: what is in it is for whoever reads it.
        values = schema.get("additionalProperties")
        return f"Dict[str, {annotation(values)}]" if isinstance(values, dict) else "Any"
    return {"integer": "int", "number": "float", "boolean": "bool"}[kind]


def reader(schema: dict[str, Any]) -> Optional[str]:
    """What turns JSON into such a value; nothing if JSON is such a value already."""
    inner, _ = without_null(schema)
    name = target(inner)
    if name:
        page = PAGE.match(name)
        if page:
            return f"lambda value: Page.from_json(value, {class_name(page.group(1))}.from_json)"
        return None if name in ALIASES else f"{class_name(name)}.from_json"
    if inner.get("format") == "date-time":
        return "parse_time"
    if inner.get("type") == "array":
        item = reader(inner["items"])
        return f"lambda items: [{called(item, 'item')} for item in items]" if item else None
    return None


def called(function: str, argument: str) -> str:
    """A reader applied to something."""
    if function.startswith("lambda"):
        head, body = function.split(": ", 1)
        return re.sub(rf"\b{head.split()[1]}\b", argument, body)
    return f"{function}({argument})"


def prose(text: str) -> str:
    """A description as it goes into a docstring."""
    return text.replace("\\", "\\\\").replace('"""', "'''").strip()
