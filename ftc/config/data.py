"""The data group: readers, head columns, augmentation and loading (no torch)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from ftc.benchmarks.catalogue import check_present
from ftc.config.node import BatchSize, Count, Natural, Node, Share, Target
from ftc.errors import InputError
from ftc.files import existing_file

# Values of data.columns that name no file, see `ftc.data.columns`.
_NAMED = ("imagenet-1k", "model")
# The end of a value of data.columns that lets the data add columns.
_PLUS = "+"


class ReadersConfig(Node):
    """The readers of a run; None where there is none."""

    source: Target | None
    train: Target
    val: Target | None
    test: Target
    pool: Target | None


class DataConfig(Node):
    """The images of a run, and how they are loaded."""

    # Further keys are parameters that readers refer to, such as root, source, target and task.
    model_config = ConfigDict(extra="allow", frozen=True)

    benchmark: str | None = None
    label: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,60}$")] | int | None
    num_classes: Count | None
    columns: str | None
    unmapped: Literal["error", "skip"]
    on_error: Literal["error", "skip"]
    overlap: Literal["error", "allow"]
    readers: ReadersConfig
    holdout: Share
    groups: str | None
    augmentation: list[Target]
    source_augmentation: list[Target]
    batch_size: BatchSize
    eval_batch_size: BatchSize | Literal["auto"]
    iterations_per_epoch: Count | None
    num_workers: Natural | Literal["auto"]
    gallery_every: Count | None
    cache: bool

    @model_validator(mode="after")
    def _one_source_of_held_out_data(self) -> DataConfig:
        if self.readers.val is not None and self.holdout:
            raise InputError(
                f"data.holdout={self.holdout:g}: goes with data.readers.val=null; a validation split is held "
                "out already"
            )
        if self.columns_file is not None and existing_file(self.columns_file) is None:
            raise InputError(
                f"data.columns={self.columns}: no such file; give null, {', '.join(_NAMED)} or a file, the "
                f"latter three with {_PLUS} at the end to add classes"
            )
        return self

    @property
    def own_columns(self) -> str | None:
        """What names the columns that the model has: ``columns`` without its plus."""
        return None if self.columns is None else self.columns.removesuffix(_PLUS)

    @property
    def adds_columns(self) -> bool:
        """Whether classes of the training images that the model lacks get columns after its own."""
        return self.columns is not None and self.columns.endswith(_PLUS)

    @property
    def columns_file(self) -> str | None:
        """The file that names the model's columns; None where none does."""
        return None if self.own_columns in _NAMED else self.own_columns

    @property
    def groups_file(self) -> str | None:
        """The file that names the groups; None where a regular expression or nothing does."""
        return None if existing_file(self.groups) is None else self.groups

    @property
    def parameters(self) -> dict[str, Any]:
        """The further keys, which readers refer to."""
        return dict(self.model_extra or {})

    def check_present(self) -> None:
        """Refuse a benchmark that is not on disk.

        Raises:
            InputError: files are missing (the message names them, their folder and the command that gets
                them), or source and target are the same domain.
        """
        assert self.benchmark is not None
        given = self.parameters
        domains = None
        if "domains" in given:
            if given["source"] == given["target"]:
                raise InputError(f"data.target={given['target']}: is the source domain; choose another")
            domains = [given["domains"][given[key]] for key in ("source", "target")]
        root, task, location = Path(given["root"]), given.get("task"), given.get("location")
        check_present(self.benchmark, root, domains=domains, task=task, location=location)

    @property
    def held_out(self) -> bool:
        """Whether labelled target images are kept out of training, for validation."""
        return self.readers.val is not None or self.holdout > 0
