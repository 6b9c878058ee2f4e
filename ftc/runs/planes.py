"""The planes of a run whose features have two dimensions: what its models do with points of all classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import attrs
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ftc.data import Preprocessing
from ftc.export.bundle import CALIBRATED_WEIGHTS, FINE_TUNED_WEIGHTS, SOURCE_WEIGHTS
from ftc.models import (
    Classifier,
    fold_calibration,
    load_metadata,
    load_tensors,
    restore_classifier,
    tensor_shape,
)
from ftc.partition import PartitionManifest
from ftc.reporting.figures.planes import Plane, feature_planes
from ftc.reporting.names import stage_title
from ftc.results import StageRecord
from ftc.runs.finished import FinishedRun, SavedOutputs
from ftc.runs.folder import PARTITION_FILE
from ftc.runs.outputs import Split, images_of

# Cells of a plane along each axis, and the margin around its points as a share of their range.
_CELLS, _MARGIN = 200, 0.08


@attrs.frozen(eq=False)
class _Model:
    """A model of the run.

    Attributes:
        title: its name in print and its γ.
        stage: its results.
        classifier: in eval mode, γ in its head's bias.
        features: (N, 2) of the test images; None where the run did not keep them.
    """

    title: str
    stage: StageRecord
    classifier: Classifier
    features: Tensor | None


def plane_figures(run: FinishedRun) -> dict[str, Figure]:
    """The figure ``feature_planes`` of a finished run whose features have two dimensions, by name.

    Its models are the source model, the fine-tuned one at γ = 0 and with the γ of the first calibrator that
    leaves weights alone, and the deployed one if its weights were moved. Where images have two values, the
    input's plane is drawn as well, and features of moved weights that the run did not keep are computed;
    elsewhere these are left out.

    Returns:
        Nothing where features have another number of dimensions, or the run kept none.

    Raises:
        InputError: a file is damaged, or the images that readers give are not those of the run.
    """
    if not (run.keeps_outputs and _width(run) == 2):
        return {}
    saved, manifest = run.outputs(), PartitionManifest.read(run.folder / PARTITION_FILE)
    models, rows = list(_models(run, saved)), {}
    preparation = Preprocessing(models[0].classifier.data_config)
    if math.prod(preparation.input_size) == 2:
        images = _images(run, "test", preparation)[saved.of("source", "test", "id")]
        behind = _images(run, "source", preparation).flatten(1) if "source" in manifest.samples else None
        rows["input"] = [_input_plane(model, images, behind) for model in models]
        models = [_with_features(model, images) for model in models]
    rows["features"] = [
        _plane(model, model.features, model.classifier.head) for model in models if model.features is not None
    ]
    target = saved.of("source", "test", "target").numpy()
    figure = feature_planes(run.record.name, rows, target, manifest.class_names, run.partition.seen)
    return {"feature_planes": figure}


def _width(run: FinishedRun) -> int | None:
    """The number of dimensions of the features; None where the run kept no model."""
    path = run.folder / FINE_TUNED_WEIGHTS
    return tensor_shape(path, f"{load_metadata(path)['head']}.weight")[1] if path.is_file() else None


def _models(run: FinishedRun, saved: SavedOutputs) -> Iterator[_Model]:
    described, stages = load_metadata(run.folder / FINE_TUNED_WEIGHTS), run.record.stages
    source, fine_tuned = (load_tensors(run.folder / name) for name in (SOURCE_WEIGHTS, FINE_TUNED_WEIGHTS))
    features = saved.of("fine_tuned", "test", "features")
    assert stages.source is not None
    yield _Model(
        "source",
        stages.source,
        restore_classifier(described, source),
        saved.of("source", "test", "features"),
    )
    yield _Model("fine-tuned, γ = 0", stages.fine_tuned, restore_classifier(described, fine_tuned), features)
    for name, stage in stages.calibrated.items():
        if stage.lane != "oracle" and not saved.has(name, "test", "logits"):
            calibrated = fold_calibration(fine_tuned, described["head"], run.partition, stage.gamma)
            yield _Model(_title(name, stage), stage, restore_classifier(described, calibrated), features)
            break
    deployed = run.record.deployed
    if deployed is not None and saved.has(deployed, "test", "logits"):
        has, stage = saved.has(deployed, "test", "features"), stages.calibrated[deployed]
        own = saved.of(deployed, "test", "features") if has else None
        weights = load_tensors(run.folder / CALIBRATED_WEIGHTS)
        yield _Model(_title(deployed, stage), stage, restore_classifier(described, weights), own)


def _title(name: str, stage: StageRecord) -> str:
    return f"{stage_title(name, stage)}, γ = {stage.gamma:.1f}"


def _images(run: FinishedRun, split: Split, preparation: Preprocessing) -> Tensor:
    """All images of a split as a model gets them, float32 (N, channels, H, W)."""
    reader = images_of(run, split, run.config.get("allow_targets", []))
    pixels = [preparation.resized(reader.decode(row)) for row in range(len(reader.targets))]
    return preparation.normalise(torch.stack(pixels))


@torch.no_grad()
def _with_features(model: _Model, images: Tensor) -> _Model:
    if model.features is not None:
        return model
    return attrs.evolve(model, features=model.classifier.features_and_logits(images)[0])


def _input_plane(model: _Model, images: Tensor, behind: Tensor | None) -> Plane:
    def logits(points: Tensor) -> Tensor:
        return model.classifier(points.reshape(-1, *images.shape[1:]))

    return _plane(model, images.flatten(1), logits, behind)


@torch.no_grad()
def _plane(
    model: _Model, points: Tensor, logits: Callable[[Tensor], Tensor], behind: Tensor | None = None
) -> Plane:
    """A panel whose regions are the labels of a grid around the points.

    Args:
        model: the model.
        points: (N, 2).
        logits: function from points (N, 2) to logits (N, C).
        behind: (M, 2), points without a class.
    """
    every = points if behind is None else torch.cat([points, behind])
    low, high = every.amin(0), every.amax(0)
    margin = _MARGIN * (high - low)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    y, x = torch.meshgrid(
        torch.linspace(bottom, top, _CELLS), torch.linspace(left, right, _CELLS), indexing="ij"
    )
    regions = logits(torch.stack([x, y], -1).reshape(-1, 2)).argmax(1).reshape(_CELLS, _CELLS)
    parts = [
        f"{name} {'–' if value is None else f'{100 * value:.1f}'}"
        for name, value in (
            ("S/Y", model.stage.metrics["acc_seen"]),
            ("U/Y", model.stage.metrics["acc_absent"]),
        )
    ]
    return Plane(
        f"{model.title}\n{', '.join(parts)} %",
        points.numpy(),
        regions.numpy(),
        (left, right, bottom, top),
        None if behind is None else behind.numpy(),
    )
