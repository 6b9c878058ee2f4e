"""torch.export: a graph that torch runs without the model's code."""

from __future__ import annotations

from pathlib import Path

import torch

from ftc.export.facts import Facts
from ftc.export.formats.base import (
    Deployment,
    Format,
    quoted,
    source_of_batch,
    source_of_pixels,
)
from ftc.files import written_whole

FACTS = "facts.json"


class TorchExport(Format):
    """One file for ``torch.export.load``, with what `ftc.export.formats.onnx.Onnx` has."""

    name = "torch_export"
    title = "torch.export"
    files = ("model.pt2",)
    predicts = False

    def write(self, deployment: Deployment, folder: Path) -> None:
        shapes = {"images": {0: torch.export.Dim("batch")}}
        program = torch.export.export(deployment.graph(), (deployment.example(),), dynamic_shapes=shapes)
        with written_whole(folder / self.file) as temporary:
            torch.export.save(program, temporary, extra_files={FACTS: deployment.facts.model_dump_json()})

    def recipe(self, facts: Facts, folder: str) -> str:
        return f"""import json
import math

import numpy as np
import torch
from PIL import Image, ImageOps

# It unpickles: load no file of people whom you do not trust.
facts = {{{quoted(FACTS)}: ""}}
model = torch.export.load({quoted(f"{folder}/{self.file}")}, extra_files=facts).module()
facts = json.loads(facts[{quoted(FACTS)}])
class_names, preprocessing = facts["class_names"], facts["preprocessing"]


{source_of_pixels(resizing=True)}

def logits(paths):
    images = [resized(opened(path, {quoted(facts.preprocessing.mode)}), **preprocessing) for path in paths]
{source_of_batch(facts)}    with torch.inference_mode():
        return model(torch.from_numpy(batch))[0].numpy()
"""
