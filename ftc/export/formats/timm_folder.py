"""A folder that plain timm and the Hub load."""

from __future__ import annotations

import json
from pathlib import Path

import timm

from ftc.export.facts import Facts
from ftc.export.formats.base import Deployment, Format, quoted, source_of_pixels
from ftc.files import written_whole
from ftc.models import Classifier, plain_timm_model

CONFIG = "config.json"
# The key of timm's configuration that holds our facts; timm passes over it.
KEY = "ftc"


class TimmFolder(Format):
    """timm's own layout: ``model.safetensors`` and ``config.json``."""

    name = "timm"
    title = "timm"
    files = (CONFIG, "model.safetensors")

    def obstacle(self, classifier: Classifier) -> str | None:
        origin = classifier.origin
        if origin is None or origin["kind"] != "timm":
            return "timm has no such model"
        # Whoever imports a package that registers models, as ftc does, has more than timm alone.
        if not timm.model_entrypoint(origin["architecture"]).__module__.startswith("timm."):
            return f"{origin['architecture']} is no model of timm's own"
        return None if origin["head"] == "linear" else f"timm has no {origin['head']} head"

    def write(self, deployment: Deployment, folder: Path) -> None:
        from timm.models import save_for_hf

        model, facts = plain_timm_model(deployment.classifier), deployment.facts
        assert model is not None
        settings = {
            "label_names": list(facts.class_names),
            "pretrained_cfg": facts.preprocessing.model_dump(mode="json"),
            KEY: facts.model_dump(mode="json"),
        }
        origin = deployment.classifier.origin
        assert origin is not None
        save_for_hf(model, str(folder), settings, model_args=origin["arguments"], safe_serialization=True)
        path = folder / CONFIG
        content = json.loads(path.read_text(encoding="utf-8"))
        # Beside the one at the root, transformers would hand timm the width twice.
        content.get("model_args", {}).pop("num_classes", None)
        # timm's licence is that of the weights which it would download.
        content["pretrained_cfg"].pop("license", None)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")

    def recipe(self, facts: Facts, folder: str) -> str:
        return f"""import timm
import torch
from PIL import Image, ImageOps

model = timm.create_model({quoted("local-dir:" + folder)}, pretrained=True).eval()
class_names = model.pretrained_cfg["label_names"]
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))


{source_of_pixels(resizing=False)}

def logits(paths):
    images = torch.stack([transform(opened(path, {quoted(facts.preprocessing.mode)})) for path in paths])
    with torch.inference_mode():
        return model(images).numpy()
"""
