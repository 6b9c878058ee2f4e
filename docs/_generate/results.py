"""``docs/results.md`` and its JSON Schema: what a run records, from the types in ``ftc.results``."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel

from docs._generate.text import described, kind, plain, table
from ftc import results
from ftc.partition import PartitionRecord
from ftc.results import RunRecord

PAGE = "results.md"
SCHEMA = "_static/results.schema.json"
HEAD = """# results.json

The record of a finished run: everything in its tables and curves, for other programs to read. It is
written last, whole or not at all, so that a folder with `results.json` is a finished run. Its JSON
Schema is [results.schema.json](_static/results.schema.json) (draft 2020-12);
`ftc.results.RunRecord.read(folder)` reads and checks it in Python. Made by `make docs` from the types in
`ftc/results.py`.

- Accuracies are fractions, times seconds, γ and logits in logits. `null` stands for what does not apply,
  such as accuracies on absent classes without images of them.
- `schema` is the version of this layout; it rises when a reader of the old one would err. Fields may be
  added without that.
- `digest` is of everything but `timing`, in canonical JSON: equal runs have equal digests, and a record
  that was changed by hand is refused.
- The names of numbers are those of [definitions.md](definitions.md).

```python
from pathlib import Path

from ftc.results import RunRecord

record = RunRecord.read(Path("outputs/my-run"))
for name, stage in record.rows():  # source, fine_tuned, then the calibrators and the oracle
    print(f"{name:25} γ {stage.gamma:5.2f}  Y/Y {stage.metrics['acc_all']:.3f}")
```
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of the file, the texts of the docstrings in it."""
    found = RunRecord.model_json_schema(by_alias=True)
    models = {"RunRecord": found, **found["$defs"]}
    for name, model in models.items():
        texts = _texts(name)
        # The file calls it schema.
        texts["schema"] = texts.get("schema_version", "")
        for field, described_by in model.get("properties", {}).items():
            described_by.pop("title", None)
            described_by["description"] = texts[field]
        model["description"] = _summary(name)
    found["properties"]["digest"] = {
        "type": "string",
        "description": "SHA-256 of everything but `timing`, shortened; missing in older records",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _model(name: str) -> type[BaseModel]:
    return PartitionRecord if name == "PartitionRecord" else getattr(results, name)


def _texts(name: str) -> dict[str, str]:
    texts = described(_model(name), "Attributes")
    return {field: re.sub(r"\bNone\b", "`null`", text.removesuffix(".")) for field, text in texts.items()}


def _summary(name: str) -> str:
    return plain((inspect.getdoc(_model(name)) or "").split("\n\n")[0])


def page() -> str:
    """The page."""
    found = schema()
    definitions = found["$defs"]
    parts = [HEAD]
    for name, model in {"RunRecord": found, **definitions}.items():
        required = model.get("required", [])
        rows = [
            (
                f"`{field}`",
                _linked(kind(of, definitions), definitions),
                of["description"] + ("" if field in required else "; *may be missing*"),
            )
            for field, of in model["properties"].items()
        ]
        extra = model.get("additionalProperties")
        if isinstance(extra, dict):
            rows.append(("…", kind(extra, definitions), "numbers by name, beside the other fields"))
        parts += [f"## {name}\n", model["description"] + "\n", table(("field", "type", "meaning"), rows)]
    return "\n".join(parts)


def _linked(words: str, definitions: dict[str, Any]) -> str:
    """A type in words, with links to the types that have a section."""
    return " ".join(
        f"[{word}](#{word.lower()})" if word.rstrip("s") in definitions or word in definitions else word
        for word in words.split(" ")
    )


def written() -> str:
    """The schema as it stands in its file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
