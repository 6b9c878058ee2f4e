"""Texts that generated pages share: docstrings' sections, types in words, tables of Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def described(target: Any, section: str) -> dict[str, str]:
    """The texts of a section of a docstring, such as ``Args``, by name; those of base classes as well."""
    classes = inspect.getmro(target) if inspect.isclass(target) else [target]
    texts: dict[str, str] = {}
    for cls in classes:
        found = re.search(rf"^{section}:\n((?:    .*\n?|\n)+)", inspect.getdoc(cls) or "", flags=re.MULTILINE)
        for entry in re.split(r"^    (?=\S)", found[1] if found else "", flags=re.MULTILINE)[1:]:
            names, _, text = entry.partition(": ")
            for name in names.split(", "):
                texts.setdefault(name.strip("* "), plain(text))
    return texts


def plain(docstring: str) -> str:
    """Text of a docstring as Markdown in one line."""
    return re.sub(r"``?([^`]+)``?", r"`\1`", " ".join(docstring.split()))


def kind(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The type of a JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        found = definitions[name]
        return name if "properties" in found else kind(found, definitions)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(choice, definitions) for choice in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: " + ", ".join(
            kind(item, definitions) for item in schema["prefixItems"]
        )
    if schema.get("type") == "array":
        item = schema.get("items") or {}
        return f"list of {_plural(kind(item, definitions))}" if item else "list"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        named = isinstance(values, dict) and bool(values)
        return f"{_plural(kind(values, definitions))} by name" if named else "object"
    word = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false"}
    return word.get(schema.get("type", ""), schema.get("type", "any")) + _bounds(schema)


def _plural(word: str) -> str:
    return re.sub(r"^(text|integer|number|object|list)\b", r"\1s", word)


def _bounds(schema: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    # Bounds of a billion keep arithmetic safe, and tell a reader nothing.
    told = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema and schema[key] < 1e4]
    return f" {', '.join(told)}" if told else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + "\n"
    )
