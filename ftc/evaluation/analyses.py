"""The part of a run's record that tells what fine-tuning did to head and features."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ftc.functional import class_shift, linear_cka, update_cosines
from ftc.functional.inputs import GROUP_CODES, label_groups
from ftc.partition import ClassPartition
from ftc.results import Analyses, ClassShift, HeadUpdates, none_if_nan


def analyses(
    features: tuple[Tensor, Tensor],
    target: Tensor,
    rows: tuple[Tensor, Tensor],
    partition: ClassPartition,
    names: Sequence[str],
    begun: Collection[int] = (),
) -> Analyses:
    """The paper's analyses of head and features (docs/definitions.md, "Analyses").

    Args:
        features: features of the test images by the source and by the fine-tuned model, (N, D) each.
        target: their labels, int64 (N,).
        rows: the rows of both models' heads, (C, D) each, see `ftc.models.head_rows`.
        partition: seen, absent and other columns.
        names: one for each head column.
        begun: columns that no source model has had; their rows are left out.
    """
    groups = label_groups(target, partition)
    chosen = {"all": torch.ones_like(groups, dtype=torch.bool)}
    chosen |= {name: groups == GROUP_CODES[name] for name in ("seen", "absent")}
    return Analyses(
        head_updates=_head_updates(*rows, partition, names, begun),
        class_shift=_class_shift(*features, target, names),
        cka={
            name: none_if_nan(linear_cka(*(of_model[members] for of_model in features)))
            for name, members in chosen.items()
        },
    )


def _head_updates(
    source: Tensor,
    fine_tuned: Tensor,
    partition: ClassPartition,
    names: Sequence[str],
    begun: Collection[int],
) -> HeadUpdates | None:
    seen, absent = ([c for c in cs if c not in begun] for cs in (partition.seen, partition.absent))
    columns = [*seen, *absent]
    if torch.equal(source[columns], fine_tuned[columns]):
        return None
    found = update_cosines(source, fine_tuned, seen, absent)
    return HeadUpdates(
        within_seen=none_if_nan(found.within_seen),
        within_absent=none_if_nan(found.within_absent),
        across=none_if_nan(found.across),
        matrix=[[none_if_nan(round(value, 3)) for value in row] for row in found.matrix.tolist()],
        names=[names[column] for column in columns],
        num_seen=len(seen),
        seen_blocks=found.seen_blocks,
        block=found.block,
    )


def _class_shift(source: Tensor, fine_tuned: Tensor, target: Tensor, names: Sequence[str]) -> ClassShift:
    found = class_shift(source, fine_tuned, target)
    first, second = (none_if_nan(share) for share in found.explained.tolist())
    return ClassShift(
        columns=found.columns.tolist(),
        names=[names[column] for column in found.columns.tolist()],
        source=[(x, y) for x, y in found.source.tolist()],
        fine_tuned=[(x, y) for x, y in found.fine_tuned.tolist()],
        explained=(first, second),
        drift=[none_if_nan(value) for value in found.drift.tolist()],
        cosine=found.cosine.tolist(),
    )
