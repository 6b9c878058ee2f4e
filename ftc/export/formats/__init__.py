"""The formats that models are deployed in, by name."""

from ftc.export.formats.base import Deployment, Format
from ftc.export.formats.onnx import Onnx, OnnxInt8
from ftc.export.formats.timm_folder import TimmFolder
from ftc.export.formats.torch_export import TorchExport

FORMATS: dict[str, Format] = {f.name: f for f in (TimmFolder(), Onnx(), OnnxInt8(), TorchExport())}

__all__ = ["FORMATS", "Deployment", "Format"]
