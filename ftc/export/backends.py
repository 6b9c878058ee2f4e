"""What runs a deployed model: onnxruntime, or torch; each is imported only where it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from attrs import frozen

from ftc.errors import InputError, require
from ftc.export.facts import Facts
from ftc.files import damage, file_digest
from ftc.results import FILE_NAME

if TYPE_CHECKING:
    from torch import nn

Device = Literal["auto", "cpu", "cuda", "mps"]
Run = Callable[[np.ndarray], np.ndarray]


@frozen(eq=False)
class Backend:
    """A loaded model.

    Attributes:
        facts: what the model says of itself.
        digest: SHA-256 of the file of its weights.
        run: function from pixels, uint8 (N, H, W, channels), to calibrated logits, float32 (N, C).
    """

    facts: Facts
    digest: str
    run: Run


def load_backend(model: Path, device: Device = "auto") -> Backend:
    """Load a model of whatever kind the path holds; files of torch.export, which unpickle, are not loaded.

    Args:
        model: a deployed folder, a run folder, or a file of either graph format.
        device: where to compute; ``auto`` for an accelerator where there is one.

    Raises:
        InputError: no model there, one that is damaged or says nothing of itself, or a missing package.
    """
    for place, load in _kinds(model).items():
        if place.is_file():
            path, facts, run = load(place, device)
            return Backend(facts, str(file_digest(str(path))), run)
    if not model.exists():
        raise InputError(f"model={model}: no such file or folder")
    raise InputError(
        f"model={model}: no model that is run here; name a folder of ftc.deploy with timm or ONNX, an .onnx "
        "file, or a run"
    )


Loader = Callable[[Path, Device], tuple[Path, Facts, Run]]


def _kinds(model: Path) -> dict[Path, Loader]:
    """The files that tell what a model is, in the order in which they are looked for."""
    if model.suffix == ".onnx":
        return {model: _onnx}
    return {
        model / FILE_NAME: _run,
        model / "config.json": _timm,
        model / "model.onnx": _onnx,
    }


def _onnx(path: Path, device: Device) -> tuple[Path, Facts, Run]:
    require("onnxruntime", "export", f"model={path}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"] if device == "cpu" else onnxruntime.get_available_providers()
    with damage(path):
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    facts = Facts.of_texts(session.get_modelmeta().custom_metadata_map, f"model={path}")
    return path, facts, lambda images: session.run(["logits"], {"images": _given(images, facts)})[0]


def _timm(path: Path, device: Device) -> tuple[Path, Facts, Run]:
    import timm

    with damage(path):
        content = json.loads(path.read_bytes())
    facts = Facts.checked(content.get("ftc", {}), f"model={path.parent}")
    weights = path.with_name("model.safetensors")
    if not weights.is_file():
        raise InputError(f"model={path.parent}: has no {weights.name}; deploy it again")
    with damage(weights):
        model = timm.create_model(f"local-dir:{path.parent}", pretrained=True).eval()
    return weights, facts, _by_torch(model, facts, device)


def _run(path: Path, device: Device) -> tuple[Path, Facts, Run]:
    from ftc.export.bundle import CALIBRATED_WEIGHTS
    from ftc.models import load_metadata, load_tensors, restore_classifier

    weights = path.parent / CALIBRATED_WEIGHTS
    metadata, state = load_metadata(weights), load_tensors(weights)
    facts = Facts.of_metadata(metadata, f"model={path.parent}")
    return weights, facts, _by_torch(restore_classifier(metadata, state), facts, device)


def _by_torch(model: nn.Module, facts: Facts, device: Device) -> Run:
    import torch

    from ftc.data.batch_transforms import normalise

    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    model.to(device)
    mean, std = (
        torch.tensor(values, device=device).reshape(-1, 1, 1)
        for values in (facts.preprocessing.mean, facts.preprocessing.std)
    )

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
            return model(normalise(pixels, mean, std)).float().cpu().numpy()

    return run


def _given(images: np.ndarray, facts: Facts) -> np.ndarray:
    """Pixels as a graph takes them."""
    if facts.input == "uint8":
        return images
    told = facts.preprocessing
    mean, std = (np.array(values, np.float32) for values in (told.mean, told.std))
    return np.ascontiguousarray(((np.float32(images) / 255 - mean) / std).transpose(0, 3, 1, 2))
