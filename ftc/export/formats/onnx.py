"""ONNX: a graph that onnxruntime runs without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
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

# Read by every onnxruntime since 1.14 (2023).
OPSET = 18


class Onnx(Format):
    """One file with preprocessing but for resizing, batch of any size, logits and probabilities."""

    name = "onnx"
    title = "ONNX"
    files = ("model.onnx",)
    needs = ("onnx", "onnxscript", "onnxruntime")

    def write(self, deployment: Deployment, folder: Path) -> None:
        with written_whole(folder / self.file) as temporary:
            temporary.write_bytes(_graph(deployment))

    def recipe(self, facts: Facts, folder: str) -> str:
        return f"""import json
import math

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({quoted(f"{folder}/{self.file}")})
facts = session.get_modelmeta().custom_metadata_map
class_names, preprocessing = (json.loads(facts[name]) for name in ("class_names", "preprocessing"))


{source_of_pixels(resizing=True)}

def logits(paths):
    images = [resized(opened(path, {quoted(facts.preprocessing.mode)}), **preprocessing) for path in paths]
{source_of_batch(facts)}    return session.run(["logits"], {{"images": batch}})[0]
"""


class OnnxInt8(Onnx):
    """The same with weights and products in 8 bits: a quarter of the size, and other numbers."""

    name = "onnx_int8"
    title = "ONNX, 8 bits"
    files = ("model.int8.onnx",)
    exact = False
    predicts = False

    def write(self, deployment: Deployment, folder: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as place, written_whole(folder / self.file) as temporary:
            whole = Path(place, "whole.onnx")
            whole.write_bytes(_graph(deployment))
            with _quiet():
                # Signed weights of convolutions are not implemented on CPUs.
                quantize_dynamic(whole, temporary, weight_type=QuantType.QUInt8)


def _graph(deployment: Deployment) -> bytes:
    """The model as ONNX, with its facts as metadata."""
    from onnxscript import ir

    facts = deployment.facts.model_copy(update={"opset": OPSET})
    with _quiet():
        program = torch.onnx.export(
            deployment.graph(),
            (deployment.example(),),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            input_names=["images"],
            output_names=["logits", "probabilities"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        for name, attribute in list(node.attributes.items()):
            if isinstance(attribute.value, bool):  # of onnxscript 0.2; protobuf 7 takes numbers alone
                node.attributes[name] = ir.AttrInt64(name, int(attribute.value))
    model = program.model_proto  # made anew at every access
    for name, text in facts.texts().items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters report of their own progress."""
    level = logging.root.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logging.root.setLevel(level)
