"""CLIP's zero-shot classifier as an ordinary classifier."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ftc.errors import InputError, require
from ftc.hub import hub_within_reach
from ftc.models.classifier import Classifier

TEMPLATES = ("a photo of a {}.",)


class ImageTower(nn.Module):
    """CLIP's image encoder: images (N, 3, H, W) → features (N, D), float32, of length 1.

    Args:
        visual: open_clip's image encoder, projection included.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.visual(images).float(), dim=-1)


def create_clip_classifier(
    name: str,
    pretrained: str | None,
    class_names: Sequence[str],
    templates: Sequence[str] = TEMPLATES,
    weights: bool = True,
) -> Classifier:
    """Create a classifier from an open_clip model's image encoder, with its zero-shot classifier as the head.

    A class's row of the head is the mean of its prompts' text embeddings, scaled to length 1, times CLIP's
    logit scale, and biases are 0: before any training the logits are CLIP's own.

    Args:
        name: an open_clip model.
        pretrained: name of its weights, which fixes their activation and preprocessing; or a file of weights,
            whose activation must then be part of ``name`` (``ViT-B-32-quickgelu`` for OpenAI's); None for
            random weights.
        class_names: one per column; underscores stand for spaces.
        templates: prompts, with ``{}`` where the class name goes.
        weights: False leaves the model, head included, at random, for weights that are loaded afterwards.

    Raises:
        InputError: open_clip is not installed, no such model or weights, weights that cannot be fetched or
            read, no class, or a prompt without a place for the name.
    """
    require("open_clip", "clip", f"model.name={name}")
    import open_clip

    if not class_names:
        raise InputError(f"model.name={name}: wants class names for its head; name data that have some")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"model.templates: {template!r} has no {{}} where the class name goes; add it")
    tag = _tag(open_clip, name, pretrained)
    model, tokenizer, width = _load(open_clip, name, pretrained, weights, tag)
    if getattr(model.visual, "output_tokens", False):
        raise InputError(
            f"model.name={name}: gives features of every patch; choose a model that gives one vector per "
            "image"
        )
    head = nn.Linear(width, len(class_names))
    if weights:
        names = [class_name.replace("_", " ") for class_name in class_names]
        with torch.no_grad():
            text = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
            head.weight.copy_(model.logit_scale.exp() * text.T)
            head.bias.zero_()
    config = _data_config(name, open_clip.get_model_preprocess_cfg(model))
    # Only weights that open_clip knows by name shape the model beyond their values.
    origin = {"kind": "clip", "name": name, "pretrained": pretrained if tag else None}
    return Classifier(ImageTower(model.visual), head, data_config=config, origin=origin).train()


def _load(
    open_clip: ModuleType, name: str, pretrained: str | None, weights: bool, tag: Mapping[str, Any]
) -> tuple[Any, Any, int]:
    """The model in eval mode, its tokenizer, and the width D of its features."""
    load = weights and pretrained is not None
    try:
        with hub_within_reach():
            model = open_clip.create_model(
                name,
                pretrained if load and ":" not in name else None,
                load_weights=load,
                require_pretrained=load,
                # Set even without weights, so that those loaded later find the model they were saved from.
                force_quick_gelu=tag.get("quick_gelu", False),
                force_preprocess_cfg=tag,
            ).eval()
            tokenizer = open_clip.get_tokenizer(name)
            width = open_clip.get_model_config(name)["embed_dim"]
    except (OSError, RuntimeError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        mend = "run once with network access, or name a file of them"
        if pretrained is not None and Path(pretrained).is_file():
            mend = "choose the model.name that they were saved from"
        raise InputError(
            f"model.pretrained={pretrained}: the weights of {name} are not to be had "
            f"({type(error).__name__}); {mend}"
        ) from error
    return model, tokenizer, width


def _tag(open_clip: ModuleType, name: str, pretrained: str | None) -> dict[str, Any]:
    """open_clip's configuration of weights, with activation and preprocessing; empty for files."""
    if ":" in name:  # hf-hub:… and local-dir:… bring their weights and configuration
        return {}
    if name not in open_clip.list_models():
        near = ", ".join(difflib.get_close_matches(name, open_clip.list_models(), 5, 0.4))
        raise InputError(f"model.name={name}: no model of open_clip; near names: {near}")
    tag = open_clip.get_pretrained_cfg(name, pretrained) if pretrained else {}
    if pretrained and not tag and not Path(pretrained).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"model.pretrained={pretrained}: no such file or weights of {name}; choose from {tags}"
        )
    return tag


def _data_config(name: str, preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's preprocessing in timm's terms."""
    crops = {"shortest": "center", "squash": "squash"}
    if preprocess["resize_mode"] not in crops:
        raise InputError(
            f"model.name={name}: resizes by {preprocess['resize_mode']}; choose a model that resizes by "
            f"{' or '.join(crops)}"
        )
    size = preprocess["size"]
    return {
        "input_size": (3, size, size) if isinstance(size, int) else (3, *size),
        "interpolation": preprocess["interpolation"],
        "mean": tuple(preprocess["mean"]),
        "std": tuple(preprocess["std"]),
        "crop_pct": 1.0,
        "crop_mode": crops[preprocess["resize_mode"]],
    }
