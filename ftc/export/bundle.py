"""The weights to deploy, with a calibrator's γ inside, from the folder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ftc.calibrators import Calibrator, LinearHead
from ftc.errors import InputError
from ftc.models import fold_calibration, load_metadata, load_tensors, save_weights
from ftc.results import RunRecord

# Weights under the names of the plain timm model, in a run folder.
SOURCE_WEIGHTS = "source.safetensors"
FINE_TUNED_WEIGHTS = "fine_tuned.safetensors"
# Weight and bias of the heads that calibrators moved, by the calibrator's name.
HEADS = "heads.safetensors"
CALIBRATED_WEIGHTS = "checkpoints/calibrated.safetensors"


def bundle(
    folder: Path, record: RunRecord, name: str, calibrator: Calibrator[Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The model that a calibrator leads to, as weights that nobody needs ftc for.

    Args:
        folder: folder of the run, with the weights of its source and its fine-tuned model.
        record: record of the run.
        name: name of the calibrator in the record.
        calibrator: the calibrator, which says which weights its γ is for.

    Returns:
        Weights under the names of the plain timm model, γ in the head's bias, and their metadata: what
        `ftc.models.restore_classifier` and `ftc.export.facts.Facts` need and, where weights were moved,
        ``alpha``.

    Raises:
        InputError: a missing file of weights, one without this calibrator's head, or a head without a bias.
    """
    stage = record.stages.calibrated[name]
    weights = load_tensors(folder / FINE_TUNED_WEIGHTS)
    metadata = load_metadata(folder / FINE_TUNED_WEIGHTS)
    metadata |= {
        "partition": record.partition.model_dump(mode="json"),
        "calibrator": name,
        "gamma": stage.gamma,
    }
    if calibrator.weights is not None:
        metadata["alpha"] = alpha = stage.details["alpha"]
        weights = calibrator.weights.at(load_tensors(folder / SOURCE_WEIGHTS), weights, alpha)
    if calibrator.moves_head:
        try:
            head = LinearHead.of(load_tensors(folder / HEADS), name)
        except KeyError as error:
            raise InputError(f"{folder / HEADS}: has no {error.args[0]}; make the run anew") from error
        weights |= head.named(metadata["head"])
    partition = record.partition.partition()
    return fold_calibration(weights, metadata["head"], partition, stage.gamma), metadata


def write_bundle(folder: Path, record: RunRecord, name: str, calibrator: Calibrator[Any]) -> Path:
    """Write the `bundle` to ``checkpoints/calibrated.safetensors`` and return its path."""
    path = folder / CALIBRATED_WEIGHTS
    save_weights(path, *bundle(folder, record, name, calibrator))
    return path
