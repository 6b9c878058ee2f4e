"""The images of a run, labelled by head column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from torch import Tensor

from ftc.assembly.instantiate import make
from ftc.config.commands import TrainConfig
from ftc.config.data import DataConfig
from ftc.config.model import ClipModelConfig, TimmModelConfig
from ftc.data import Checked, Groups, Reader, check_images, columns_of, groups_of, select, workers
from ftc.data.columns import IMAGENET, MODEL, by_column
from ftc.data.groups import notes_on_groups
from ftc.data.listing import counted
from ftc.data.readers import check_reader, sample_name
from ftc.errors import InputError
from ftc.models import begun_columns, label_names, named_columns
from ftc.partition import HeadColumns, SampleList, digest_samples, without


@frozen(eq=False)
class Images:
    """Every image of a run, labelled by head column and known to be readable.

    Attributes:
        readers: the readers ``source``, ``train``, ``val``, ``test`` and ``pool``; None where there is none.
        head: the names of the head's columns.
        given: number of columns that come with the model, the first ones; ``data.columns=…+`` adds others.
        known: columns that the source model has been given: those of source images where the run trains it on
            these, else those that come with the model, without those that a run has begun but not trained. A
            seen class is *new* where its column is not known.
        notes: what was left out of the data, and what it has twice, a line each.
        samples: count and digest of every reader's list of samples and labels, as in a manifest.
        groups: groups of every reader's samples, see `ftc.data.groups_of`.
    """

    readers: Mapping[str, Reader | None]
    head: HeadColumns
    given: int
    known: tuple[int, ...]
    notes: tuple[str, ...]
    samples: Mapping[str, dict[str, Any]]
    groups: Mapping[str, Groups | None]

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per head column."""
        return self.head.names

    def columns(self, split: str) -> tuple[int, ...]:
        """Head columns of which a reader has images."""
        return _labels(self.readers[split])

    def names(self, split: str, chosen: Tensor) -> tuple[str, ...]:
        """Names of the samples of a reader that a mask, bool (N,), chooses."""
        reader = self.readers[split]
        assert reader is not None
        return tuple(sample_name(reader, row) for row in chosen.nonzero()[:, 0].tolist())


def build_images(config: TrainConfig) -> Images:
    """Build all readers, map their labels to head columns and check their files.

    Args:
        config: ``data`` names the readers; ``data.columns=model`` means the class names of ``model``, or of
            the file whose weights take the place of its own.

    Raises:
        InputError: a reader that cannot be built or has no image to use, classes without a column, images
            that cannot be read.
    """
    data = config.data
    nodes = data.readers.model_dump()
    raw = {key: None if node is None else make(f"data.readers.{key}", node) for key, node in nodes.items()}
    for key, reader in raw.items():
        if reader is not None:
            check_reader(f"data.readers.{key}", reader, labelled=key != "pool")
    labelled = {key: reader for key, reader in raw.items() if reader is not None and key != "pool"}
    columns = columns_of(data.own_columns, list(labelled.values()), lambda: _own_names(config))
    if data.adds_columns:
        # A class that there is nothing to learn from gets no column.
        learnt = [labelled[key] for key in ("train", "source") if key in labelled]
        columns = columns.extended(r.class_names[label] for r in learnt for label in _labels(r))
    if data.num_classes not in (None, len(columns)):
        whose = "the data name" if data.columns is None else f"data.columns={data.columns} names"
        raise InputError(
            f"data.num_classes={data.num_classes}: {whose} {len(columns)} classes; correct one of the two"
        )
    readers: dict[str, Reader | None] = dict(raw)
    for key, reader in labelled.items():
        readers[key] = by_column(columns, key, reader, data.unmapped)
    present = {key: reader for key, reader in readers.items() if reader is not None}
    processes = workers(data.num_workers)
    checked = check_images(present, data.on_error, config.cache("images"), processes, data.overlap)
    for key, reader in present.items():
        readers[key] = select(reader, checked.rows[key])
        if not len(checked.rows[key]):
            raise InputError(f"data.readers.{key}: {_nothing_left(raw[key], reader)}")
    used = {key: reader for key, reader in readers.items() if reader is not None}
    groups = groups_of(data.groups, used)
    notes = (*_notes(raw, checked), *notes_on_groups(groups))
    samples = {key: _digest(reader) for key, reader in used.items()}
    # CLIP's own text encoder gives a column to every name.
    every = isinstance(config.model, ClipModelConfig) and config.weights_file is None
    given = len(columns) if every else len(columns) - columns.added
    known = without(range(given), _begun(config.weights_file))
    if config.trains_source:
        known = list(_labels(readers["source"]))
    return Images(readers, columns, given, tuple(known), notes, samples, groups)


def _labels(reader: Reader | None) -> tuple[int, ...]:
    return () if reader is None else tuple(reader.targets.unique().tolist())


def build_reader(
    data: DataConfig, split: str, class_names: Sequence[str], cache_dir: Path
) -> tuple[Reader, SampleList]:
    """Build one reader again, as a run had it whose head's columns are known.

    Args:
        data: the run's data group.
        split: the reader's name.
        class_names: names of the head's columns.
        cache_dir: the run's cache.

    Returns:
        The samples that can be used, labelled by head column but for those of ``pool``; and their number and
        digest.

    Raises:
        InputError: see `build_images`.
    """
    key = f"data.readers.{split}"
    raw = make(key, getattr(data.readers, split))
    labelled = split != "pool"
    check_reader(key, raw, labelled)
    mapped = raw
    if labelled:
        # A file of names and ImageNet accept further names; all else names the columns that the run had.
        choice = data.own_columns if data.columns_file or data.own_columns == IMAGENET else MODEL
        columns = columns_of(choice, [raw], lambda: class_names).extended(class_names)
        mapped = by_column(columns, split, raw, data.unmapped)
    checked = check_images({split: mapped}, data.on_error, cache_dir / "images", workers(data.num_workers))
    reader = select(mapped, checked.rows[split])
    return reader, SampleList(**_digest(reader))


def _nothing_left(raw: Any, mapped: Reader) -> str:
    """Why a reader has no image to use, and the mend."""
    if len(mapped.targets):
        return f"none of its {len(mapped.targets)} images can be used (data.on_error=skip); mend some"
    if len(raw.targets):
        return "the head has no column for its classes (data.unmapped=skip); name them in data.columns"
    return "no image in it; name a reader that has some"


def _notes(raw: Mapping[str, Any], checked: Checked) -> Iterator[str]:
    """Lines on what is left out of the data, and on what it has twice."""
    for key, rows in checked.rows.items():
        ignored = getattr(raw[key], "ignored", {})
        if ignored:
            yield f"data.readers.{key}: passed over {counted(ignored)}, which Pillow does not read as images"
        skipped = len(getattr(raw[key], "skipped", ())) + len(raw[key].targets) - len(rows)
        if skipped:
            yield f"data.readers.{key}: {skipped} samples left out, {len(rows)} are used"
        if key in checked.repeated:
            yield f"data.readers.{key}: {checked.repeated[key]} of {len(rows)} images repeat others' bytes"
    if checked.overlapping:
        yield f"data.readers.train: {checked.overlapping} images are evaluated on, too (data.overlap=allow)"


def _digest(reader: Reader) -> dict[str, Any]:
    # The unlabelled pool has no class names, and no labels either.
    names = reader.class_names or ("",)
    lines = [f"{sample_name(reader, i)}\t{names[max(t, 0)]}" for i, t in enumerate(reader.targets.tolist())]
    return {"count": len(lines), "sha256": digest_samples(lines)}


def _begun(file: str | None) -> set[int]:
    """The columns in a file of weights that images of new classes began."""
    if file is None or Path(file).suffix.lower() != ".safetensors":
        return set()
    return begun_columns(Path(file))


def _own_names(config: TrainConfig) -> tuple[str, ...] | None:
    """The names of the columns that the model's weights come with; None where they have none."""
    model, file = config.model, config.weights_file
    names = None if file is None else named_columns(Path(file))
    if names is None and isinstance(model, TimmModelConfig):
        return label_names(model.name, model.arguments)
    return names
