"""Reading of weights from our own files and from checkpoints of other programs."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftc.errors import InputError
from ftc.models.classifier import Classifier
from ftc.models.weights import load_metadata, load_tensors


@dataclass(frozen=True)
class LoadReport:
    """A report on what `load_checkpoint` read.

    Attributes:
        path: the file.
        format: the kind of file, where in it the state dict is, the prefix of its names, and their kind, in
            words.
        missing: parameters and buffers that the file lacks; they kept their values.
        unexpected: further entries of the state dict, under its own names; they were left out.
        metadata: metadata of a safetensors file such as ``calibrated.safetensors``, with JSON parsed;
            ``class_names``, where it is there, is a list of text.
        notes: further lines: what else would have fitted, and metadata that could not be used.
    """

    path: Path
    format: str
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report in lines for people to read."""
        lines = [f"{self.path}: {self.format}", *self.notes]
        if self.missing:
            lines.append(f"not in the file, left as they were: {_some(self.missing)}")
        if self.unexpected:
            lines.append(f"not in the model, left out: {_some(self.unexpected)}")
        gamma, calibrator = self.metadata.get("gamma"), self.metadata.get("calibrator")
        if isinstance(gamma, float):
            of = calibrator if isinstance(calibrator, str) else "a calibrator"
            lines.append(f"calibrated: γ {gamma:.2f} of {of} is folded into its head")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def load_checkpoint(
    path: Path,
    classifier: Classifier,
    strict: bool = True,
    any_head: bool = False,
    columns: int | None = None,
) -> LoadReport:
    """Load weights of this or another program into a classifier, all or none.

    The file is `.safetensors` or written by ``torch.save``. Its weights have the names of the timm (or
    torchvision) model, or ``backbone.…`` and ``head.…`` as in the paper's released files. They may be nested
    in the file, up to three keys deep, and have any prefix: the mapping and the prefix are taken below which
    most of the model's weights are found. Where several fit equally well, averaged weights take precedence
    (`_is_averaged`). Nothing in a file is ever executed: only tensors and plain values are read.

    Args:
        path: the file.
        classifier: changed in place; it stays as it was after an error.
        strict: whether a parameter or buffer that the file lacks is an error. Batch norm's counters may
            always be missing.
        any_head: whether a head of another width, or none, keeps its initial values.
        columns: number of head columns that the file has, the classifier's first ones, where it has more; the
            others keep their initial values.

    Raises:
        InputError: no such file, a file that is no checkpoint or would run code, missing parameters, several
            sets of weights that fit equally well but differ, a head of another width, a shape that differs,
            or weights that are not finite.
    """
    kind, content, metadata = _read(path)
    initial = classifier.timm_state_dict()
    head = f"{classifier.head_name}."
    of_head = [name for name in initial if name.startswith(head)]
    expected = dict(initial)
    if columns is not None:
        expected |= {name: initial[name][:columns] for name in of_head}
    fits = _best_fits(path, content, expected, classifier.head_name)
    taken = [fit for fit in fits if fit.averaged] or fits
    fit = taken[0]
    known = {name: fit.content[original] for name, original in fit.names.items()}
    if any_head and any(n not in known or known[n].shape != expected[n].shape for n in of_head):
        known |= {name: expected[name] for name in of_head}
    if known.keys() != expected.keys():
        _check_merged(path, fit)
    missing = _missing(path, fit, known, expected, strict)
    _check_unambiguous(path, taken)
    _check_shapes(path, known, expected, f"{head}weight")
    _check_values(path, known, expected)
    if columns is not None:
        known |= {
            name: torch.cat([known[name].to(initial[name]), initial[name][columns:]]) for name in of_head
        }
    classifier.load_timm_state_dict({**expected, **known})
    metadata, notes = _usable(metadata)
    if len(taken) < len(fits):
        others = "; ".join(f"state dict{other.place}" for other in fits if not other.averaged)
        notes = (f"averaged weights, taken rather than {others}", *notes)
    form = f"{kind}{fit.place}, {fit.layout}"
    return LoadReport(path, form, missing, fit.left_out, metadata, notes)


def named_columns(path: Path) -> tuple[str, ...] | None:
    """The class names of a head's columns in a safetensors file's metadata; None where there are none.

    Raises:
        InputError: a file that ends in .safetensors and is none.
    """
    metadata = _usable(load_metadata(path))[0] if path.suffix.lower() == ".safetensors" else {}
    return tuple(metadata["class_names"]) if "class_names" in metadata else None


def _read(path: Path) -> tuple[str, Any, dict[str, Any]]:
    """The kind of a file, its content, and its metadata."""
    if path.suffix.lower() == ".safetensors":
        return "safetensors", load_tensors(path), load_metadata(path)
    content = _torch_content(path)
    lightning = isinstance(content, Mapping) and "pytorch-lightning_version" in content
    return "Lightning checkpoint" if lightning else "state dict", content, {}


def _torch_content(path: Path) -> Any:
    try:
        # timm's training checkpoints carry their command line, which only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # damaged files raise almost anything
        called = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and called:
            raise InputError(
                f"{path}: refused, since reading it would run {called[1]}; where you trust it, convert its "
                "tensors to safetensors"
            ) from error
        raise InputError(
            f"{path}: no checkpoint, or a damaged one ({type(error).__name__}); fetch it again, or "
            "convert it to safetensors"
        ) from error


# How many keys deep a state dict may lie in a file.
_DEPTH = 3
# Words of a key or prefix that say that its weights are averages over the training.
_AVERAGED = re.compile(
    r"(?<![A-Za-z])(?:ema|swa|avg|averaged?)(?![a-z])|(?:Ema|EMA|Swa|SWA|Avg|AVG|Averaged?)(?![a-z])"
)


@dataclass(frozen=True)
class _Fit:
    """The weights that are found in one mapping of a file, below one prefix.

    Attributes:
        keys: the keys under which the mapping is in the file.
        prefix: what stands before the weights' names.
        layout: the kind of names, in words.
        averaged: whether the weights are averages over the training.
        content: the mapping.
        names: the names in the mapping by the model's names.
    """

    keys: tuple[str, ...]
    prefix: str
    layout: str
    averaged: bool
    content: Mapping[str, Any]
    names: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where in the file the weights are, in words that follow the kind of file."""
        under = f" under {'.'.join(self.keys)}" if self.keys else ""
        return f"{under}, prefix {self.prefix}" if self.prefix else under

    @property
    def left_out(self) -> tuple[str, ...]:
        """The other names of the mapping."""
        used = set(self.names.values())
        return tuple(name for name in self.content if name not in used)

    def score(self, expected: Mapping[str, Tensor]) -> tuple[int, int]:
        """How many of the model's weights it has, by name, and how many of their shape."""
        needed = [name for name in self.names if not _is_counter(name)]
        shaped = sum(self.content[self.names[name]].shape == expected[name].shape for name in needed)
        return len(needed), shaped

    def is_within(self, other: _Fit) -> bool:
        """Whether it lies deeper in the file than another, in the same place."""
        own, outer = ((*fit.keys, *fit.prefix.split(".")[:-1]) for fit in (self, other))
        return len(own) > len(outer) and own[: len(outer)] == outer

    def equals(self, other: _Fit) -> bool:
        """Whether it has the same weights as another."""
        return self.names.keys() == other.names.keys() and all(
            _equal(self.content[original], other.content[other.names[name]])
            for name, original in self.names.items()
        )


def _best_fits(path: Path, content: Any, expected: Mapping[str, Tensor], head_name: str) -> list[_Fit]:
    """The weights of a file that fit the model best: several where they fit it equally well."""
    mappings = sorted(_mappings(content), key=lambda found: -sum(map(_is_weight, found[1].values())))
    if not mappings:
        keys = f" (it has {_some(map(str, content))})" if isinstance(content, Mapping) and content else ""
        raise InputError(f"{path}: no state dict in it{keys}; save the model's state_dict() alone")
    # A prefix of the one layout may be a part of the names in the other, such as "backbone.".
    layouts = {
        "names of the timm model": {name: name for name in expected},
        "names of backbone and head": {_released_name(name, head_name): name for name in expected},
    }
    fits = [
        _Fit(keys, prefix, layout, _is_averaged(content, keys, prefix, mapping), mapping, found)
        for keys, mapping in mappings
        for layout, names in layouts.items()
        for prefix, found in _by_prefix(mapping, names).items()
    ]
    best = max(fit.score(expected) for fit in fits)
    fits = [fit for fit in fits if fit.score(expected) == best]
    return [fit for fit in fits if not any(fit.is_within(o) and fit.averaged == o.averaged for o in fits)]


def _mappings(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The mappings of a file that have weights among their values, with the keys that lead there."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()
    for keys, mapping in waiting:  # grows as it goes
        if not isinstance(mapping, Mapping):
            continue
        if any(map(_is_weight, mapping.values())):
            yield keys, {str(name): value for name, value in mapping.items()}
        # A damaged file may have a mapping inside itself, over and over.
        if len(keys) < _DEPTH and id(mapping) not in seen:
            seen.add(id(mapping))
            waiting += [((*keys, str(key)), value) for key, value in mapping.items()]


def _by_prefix(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The names of a mapping by the model's names, below every prefix where there are any.

    Modules that wrap a part of the model, as those of `torch.compile` do, add parts to the middle of a name,
    which do not count.

    Args:
        content: the mapping.
        names: the model's names by what they are called in the mapping.
    """
    own_parts = {part for name in names for part in name.split(".")}
    found: dict[str, dict[str, str]] = {"": {}}
    for original in (name for name, value in content.items() if _is_weight(value)):
        parts = original.split(".")
        # torch's wrappers call what they wrap "module", or give it a private name.
        plain = [part in own_parts or not (part == "module" or part.startswith("_")) for part in parts]
        for start in (i for i in range(len(parts)) if plain[i]):
            name = ".".join(parts[i] for i in range(start, len(parts)) if plain[i])
            if name in names:
                prefix = "".join(f"{part}." for part in parts[:start])
                found.setdefault(prefix, {}).setdefault(names[name], original)
    return found


def _is_averaged(content: Any, keys: Sequence[str], prefix: str, mapping: Mapping[str, Any]) -> bool:
    """Whether weights are averages over the training, by what stands before or beside them."""
    if any(_AVERAGED.search(part) for part in (*keys, prefix)):
        return True
    # Lightning's WeightAveraging puts the averages in the place of the model's weights.
    if list(keys) == ["state_dict"] and "averaging_state" in content:
        return True
    # torch's AveragedModel counts its updates beside the model.
    wrapped = re.finditer(r"(?<![^.])module\.", prefix)
    return any(f"{prefix[: found.start()]}n_averaged" in mapping for found in wrapped)


def _released_name(name: str, head_name: str) -> str:
    """What the paper's released files call a weight."""
    of_head = name.startswith(f"{head_name}.")
    return f"head.{name.removeprefix(f'{head_name}.')}" if of_head else f"backbone.{name}"


def _is_counter(name: str) -> bool:
    """Whether an entry of a state dict is batch norm's counter, which no prediction depends on."""
    return name.endswith("num_batches_tracked")


def _is_weight(value: Any) -> bool:
    """Whether a value is a tensor that can be copied into a parameter."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


def _check_merged(path: Path, fit: _Fit) -> None:
    """Refuse weights that a function is applied to, such as LoRA's before they are merged.

    Raises:
        InputError: there are such.
    """
    if any(".parametrizations." in name for name in fit.content):
        raise InputError(
            f"{path}: is from within a training by LoRA or the like, whose changes are not merged; name "
            "fine_tuned.safetensors of a finished run, or merge them"
        )


def _missing(
    path: Path, fit: _Fit, known: Mapping[str, Tensor], expected: Mapping[str, Tensor], strict: bool
) -> tuple[str, ...]:
    """The weights that a file lacks; refused where they may not be missing, or where nothing fits."""
    needed = [name for name in expected if not _is_counter(name)]
    missing = tuple(name for name in needed if name not in known)
    some_fit = any(name in fit.names for name in needed)
    if missing and (strict or not some_fit):
        has = f"; the file has {_some(fit.left_out)}" if fit.left_out else ""
        keep = "; source.strict=false keeps their initial values" if some_fit else ""
        raise InputError(
            f"{path}: {len(missing)} of {len(needed)} weights are missing: {_some(missing)}{has}; choose the "
            f"model.name that it was saved from{keep}"
        )
    return missing


def _check_unambiguous(path: Path, fits: Sequence[_Fit]) -> None:
    others = [other for other in fits[1:] if not other.equals(fits[0])]
    if others:
        places = "; ".join(f"state dict{fit.place}" for fit in (fits[0], *others))
        raise InputError(
            f"{path}: weights that differ fit the model equally well: {places}; save one of them alone"
        )


def _check_shapes(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], head: str) -> None:
    wrong = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if head in wrong and found[head].shape[1:] == expected[head].shape[1:]:
        width, wanted = len(found[head]), len(expected[head])
        raise InputError(
            f"the head in {path} has {width} columns, the partition has {wanted}: set "
            f"data.num_classes={width}, choose a checkpoint with {wanted}, or name the file's columns in "
            "data.columns=names.txt+, which adds those that the data have besides"
        )
    if wrong:
        shapes = [tuple(tensors[wrong[0]].shape) for tensors in (found, expected)]
        more = f" ({len(wrong)} such shapes)" if len(wrong) > 1 else ""
        raise InputError(
            f"{path}: {wrong[0]} has shape {shapes[0]}, the model wants {shapes[1]}{more}; choose the "
            "model.name that it was saved from"
        )


def _check_values(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in found.items():
        own = expected[name]
        if own.is_floating_point() and not tensor.is_floating_point():
            raise InputError(
                f"{path}: weight {name} has dtype {tensor.dtype}; save weights as floating-point numbers"
            )
        # Buffers may have infinities of their own, such as the masks of attention.
        if not _is_finite(tensor) and _is_finite(own):
            raise InputError(
                f"{path}: weight {name} is not finite; choose a checkpoint from before the training diverged"
            )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _usable(metadata: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Metadata without class names that are none, and a line that says so."""
    names = metadata.get("class_names", [])
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return metadata, ()
    kept = {key: value for key, value in metadata.items() if key != "class_names"}
    return kept, ("class_names in its metadata is no list of names, left out",)


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first few of many names."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
