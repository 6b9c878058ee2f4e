"""``docs/configuration.md``: every key, its default and meaning from ``conf/``, its type from the code."""

from __future__ import annotations

import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter

from docs._generate.text import described, kind, plain, table
from ftc.cli.launch import KINDS, conf_dir
from ftc.config.calibration import CalibrationConfig
from ftc.config.data import DataConfig
from ftc.config.model import ClipModelConfig, TimmModelConfig
from ftc.config.partition import PartitionConfig
from ftc.config.training import TrainerConfig

PAGE = "configuration.md"
HEAD = """# Configuration reference

Every key of every command: its default, its type, what it means. A key is set on the command line,
`key=value`, and an unknown one is refused at once; `--cfg job` prints what a command would run with.
Made by `make docs` from the comments in [`conf/`](../conf/train.yaml) and the types in `ftc/config/`;
*required* has no default, `null` means that the meaning says.

Values are those of [Hydra](https://hydra.cc/docs/advanced/override_grammar/basic/): lists as `[a,b]`,
mappings as `{key: value}`; quote for the shell what has spaces, brackets with spaces, `$` or `{`.
`+key=value` adds a key where extra ones are allowed (`trainer`, `kwargs`), `-m key=a,b` runs one job for
each value.
"""
_HEADS = ("key", "default", "type", "meaning")
Rows = Iterator[tuple[str, str, str, str]]


class File:
    """A file of ``conf/``: its nodes, and the comments beside them."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.name = path.stem
        root = yaml.compose(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.nodes = _pairs(root) if isinstance(root, yaml.MappingNode) else {}
        self.said: dict[tuple[int, str], str] = {}

    @property
    def title(self) -> str:
        """The comment at the head.

        Raises:
            ValueError: there is none.
        """
        lines = []
        for line in self.text.splitlines():
            if line.startswith("# @"):
                continue
            if not line.startswith("#"):
                break
            lines.append(line.lstrip("# "))
        if not lines:
            raise ValueError(f"{self.name}.yaml: has no comment at its head that says what it is")
        return " ".join(lines)

    def comment(self, key: yaml.Node, value: yaml.Node) -> str:
        """The comment behind a key, or behind its value where that stands on the same line."""
        end = value.end_mark if value.end_mark.line == key.end_mark.line else key.end_mark
        found = re.search(r"\s#\s*(.*)$", self.text.splitlines()[end.line][end.column :])
        return found[1] if found else ""

    def value(self, node: yaml.Node) -> str:
        """A default as it stands in the file; empty for a block."""
        text = self.text[node.start_mark.index : node.end_mark.index].strip()
        if text == "???":
            return "*required*"
        return "" if "\n" in text and not text.startswith("[") else f"`{' '.join(text.split())}`"


def _pairs(node: yaml.MappingNode) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    return {key.value: (key, value) for key, value in node.value}


def _rows(
    file: File,
    nodes: Mapping[str, tuple[yaml.Node, yaml.Node]],
    prefix: str,
    types: Mapping[str, Any],
    definitions: Mapping[str, Any],
) -> Rows:
    """Rows of the keys of a node whose type has these properties.

    A key that has no comment means what the key of the same name means in the last node of the same type.

    Raises:
        ValueError: nothing says what a key means.
    """
    for name, (key, value) in nodes.items():
        if name in ("defaults", "hydra", "_target_", "kind"):
            continue
        path = prefix + name
        meaning = file.comment(key, value) or file.said.get((id(types), name), "")
        file.said[id(types), name] = meaning
        schema = types.get(name, {})
        inner = definitions.get(schema.get("$ref", "").rpartition("/")[2], {}).get("properties")
        below = _pairs(value) if isinstance(value, yaml.MappingNode) else {}
        if "_target_" in below:
            yield from _target_rows(file, below, path, meaning)
            continue
        if inner is None or not below:
            if not meaning:
                raise ValueError(f"{file.name}.yaml: {path} has no comment that says what it means")
            yield f"`{path}`", file.value(value), kind(schema, definitions) if schema else "", meaning
        else:
            if meaning:
                yield f"`{path}`", "", "", meaning
            yield from _rows(file, below, f"{path}.", inner, definitions)


def _target_rows(
    file: File, nodes: Mapping[str, tuple[yaml.Node, yaml.Node]], path: str, meaning: str
) -> Rows:
    """A row for what a ``_target_`` builds, and one for each argument that the file gives."""
    target = nodes["_target_"][1].value
    yield f"`{path}`", "", f"`{target}`", meaning or _first_line(pkgutil.resolve_name(target))
    yield from _arguments(file, nodes, path, pkgutil.resolve_name(target))


def _arguments(file: File, nodes: Mapping[str, tuple[yaml.Node, yaml.Node]], path: str, target: Any) -> Rows:
    texts = described(target, "Args")
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    for name, (key, value) in nodes.items():
        if name in ("_target_", "defaults"):
            continue
        meaning = file.comment(key, value) or texts.get(name, "").removesuffix(".")
        if not meaning:
            raise ValueError(
                f"{file.name}.yaml: {path}.{name} has neither a comment nor a line in the docstring"
            )
        below = _pairs(value) if isinstance(value, yaml.MappingNode) else {}
        default = f"`{below['_target_'][1].value}`" if "_target_" in below else file.value(value)
        yield f"`{path}.{name}`", default, _annotated(hints.get(name)), meaning


def _annotated(hint: Any) -> str:
    """The type of an argument in words; of one that is an object, its name."""
    if hint is None:
        return ""
    try:
        schema = TypeAdapter(hint).json_schema()
    except PydanticSchemaGenerationError:
        names = [getattr(part, "__name__", str(part)) for part in get_args(hint) or (hint,)]
        return " or ".join("null" if name == "NoneType" else f"`{name}`" for name in names)
    return kind(schema, schema.get("$defs", {}))


def _first_line(target: Any) -> str:
    return plain((inspect.getdoc(target) or "").splitlines()[0])


def _model_table(
    file: File, prefix: str, model: type[BaseModel], only: Mapping[str, Any] | None = None
) -> str:
    schema = model.model_json_schema()
    nodes = file.nodes if only is None else {name: pair for name, pair in file.nodes.items() if name in only}
    return table(_HEADS, _rows(file, nodes, prefix, schema["properties"], schema.get("$defs", {})))


def _choices(folder: Path) -> str:
    files = [File(path) for path in sorted(folder.glob("*.yaml"))]
    return table(
        ("choice", "what"), ((f"`{file.name}`", file.title) for file in files if file.name not in _PARTS)
    )


# Files that others are made of, and no choices themselves.
_PARTS = ("base", "options", "calibrators")
_GROUPS = (
    "experiment",
    "recipe",
    "data",
    "model",
    "partition",
    "method",
    "calibration",
    "trainer",
    "logger",
    "sweep",
)


def page() -> str:
    """The page."""
    conf = conf_dir()
    union = {
        get_args(rule.model_fields["kind"].annotation)[0]: rule
        for rule in get_args(get_args(PartitionConfig)[0])
    }
    union["far"] = union["near"]
    parts = [HEAD, "## Groups\n", "`group=choice` takes a file of `conf/group/`; `-m group=a,b` runs both.\n"]
    for group in _GROUPS:
        parts += [f"### {group}\n", _choices(conf / group)]
    train = File(conf / "train.yaml")
    parts += ["## ftc.train\n", train.title + "\n", _model_table(train, "", KINDS["train"])]
    parts += ["### Keys of data\n", _model_table(File(conf / "data/base.yaml"), "data.", DataConfig)]
    parts += ["### Keys of model\n"]
    for name, model in (("timm", TimmModelConfig), ("clip", ClipModelConfig)):
        file = File(conf / f"model/{name}.yaml")
        parts += [f"{file.title}\n", _model_table(file, "model.", model)]
    parts += ["### Keys of partition\n"]
    for path in sorted((conf / "partition").glob("*.yaml")):
        file = File(path)
        parts += [
            f"`partition={file.name}`: {file.title}\n",
            _model_table(file, "partition.", union[file.name]),
        ]
    options = File(conf / "method/options.yaml")
    parts += [
        "### Keys of method\n",
        "Of every method:\n",
        _arguments_table(options, "method", "ftc.finetune.Method"),
    ]
    own = [File(path) for path in sorted((conf / "method").glob("*.yaml")) if path.stem != "options"]
    rows = [row for file in own for row in _method_rows(file)]
    parts += ["Of single ones:\n", table(("method", *_HEADS), rows)]
    calibrators = File(conf / "calibration/calibrators.yaml")
    default = File(conf / "calibration/default.yaml")
    shared = {name: pair for name, pair in calibrators.nodes.items() if name != "calibrators"}
    parts += [
        "### Keys of calibration\n",
        _model_table(default, "calibration.", CalibrationConfig),
        _model_table(calibrators, "calibration.", CalibrationConfig, shared),
        "`calibration.calibrators`, each with the arguments of its class; the names are yours to add to:\n",
        table(_HEADS, _nodes(calibrators, calibrators.nodes["calibrators"][1], "calibration.calibrators")),
        "### Keys of trainer\n",
        _model_table(File(conf / "trainer/auto.yaml"), "trainer.", TrainerConfig),
        "### Keys of logger\n",
    ]
    loggers = [File(path) for path in sorted((conf / "logger").glob("*.yaml"))]
    parts.append(table(_HEADS, (row for file in loggers for row in _nodes(file, None, "logger"))))
    for name in ("evaluate", "calibrate", "compare", "report", "deploy", "predict"):
        file = File(conf / f"{name}.yaml")
        parts += [f"## ftc.{name}\n", f"{file.title}\n", _model_table(file, "", KINDS[name])]
    return "\n".join(parts)


def _nodes(file: File, node: yaml.Node | None, path: str) -> Rows:
    pairs = file.nodes if node is None else _pairs(typing.cast(yaml.MappingNode, node))
    for name, (key, value) in pairs.items():
        yield from _target_rows(file, _pairs(value), f"{path}.{name}", file.comment(key, value))


def _arguments_table(file: File, path: str, target: str) -> str:
    return table(_HEADS, _arguments(file, file.nodes, path, pkgutil.resolve_name(target)))


def _method_rows(file: File) -> Iterator[tuple[str, ...]]:
    target = pkgutil.resolve_name(file.nodes["_target_"][1].value)
    for row in _arguments(file, file.nodes, "method", target):
        yield (f"`{file.name}`", *row)
