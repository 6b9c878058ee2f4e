"""Somebody's module and data, which know nothing of ftc."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from ftc import ClassPartition
from ftc.calibrators import AnchoredLogitGap, AverageLogitGap, ExpectedAccuracy, MixedAnchor, PriorMatching

PARTITION = ClassPartition(6, seen=[0, 2, 4], absent=[1, 5])


CALIBRATORS = {
    "alg": AverageLogitGap,
    "anchored": AnchoredLogitGap,
    "mixed_anchor": MixedAnchor,
    "prior_matched": PriorMatching,
    "expected_accuracy": ExpectedAccuracy,
}


class Foreign(LightningModule):
    """Somebody's module: two layers, its own logging, several validation loaders."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(8, 5)
        self.head = torch.nn.Linear(5, 6)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.head(self.body(x).relu()), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        features = self.body(x).relu()
        logits = self.head(features)
        self.log("my_loss", torch.nn.functional.cross_entropy(logits, y))
        return {"logits": logits, "target": y, "features": features}

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def dataset(size: int, seed: int, classes=range(6)) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    choices = torch.tensor(list(classes))
    y = choices[torch.randint(0, len(choices), (size,), generator=generator)]
    centres = torch.randn(6, 8, generator=torch.Generator().manual_seed(99))
    return TensorDataset(centres[y] + 0.7 * torch.randn(size, 8, generator=generator), y)


def permuted(data: TensorDataset, classes) -> TensorDataset:
    """The same images with the labels of these classes shuffled among themselves."""
    x, y = data.tensors
    rows = torch.isin(y, torch.tensor(list(classes))).nonzero()[:, 0]
    shuffled = y.clone()
    shuffled[rows] = y[rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))]]
    assert not torch.equal(shuffled, y)
    return TensorDataset(x, shuffled)


def every_calibrator() -> dict:
    return {name: method() for name, method in CALIBRATORS.items()}


def trainer(callback, *others, **arguments) -> Trainer:
    defaults = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=[*([callback] if callback else []), *others], **{**defaults, **arguments})


def forward(module, data):
    x, y = data.tensors
    with torch.no_grad():
        features = module.body(x).relu()
        return module.head(features), y, features


def validated(callback, *data, **arguments) -> Foreign:
    """An untrained module after one validation pass over these data, in the order of the roles."""
    module = Foreign()
    engine = trainer(callback, **arguments)
    engine.validate(module, [DataLoader(part, 16) for part in data], verbose=False)
    return module
