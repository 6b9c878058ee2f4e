"""Training speed against a hand-written loop in the same run; ``make bench ARGS="-k training"`` prints it.

Both sides have the same model, batches, optimiser, schedule and precision, and take turns. Ours is Lightning
with `FineTuneModule`, `CalibrationCallback` and everything else that goes along with a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import pytest
import timm
import torch
from lightning.pytorch import Callback, Trainer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from ftc import CalibrationCallback, ClassPartition, FineTuneModule
from ftc.callbacks import Checkpointing, SeedSteps, StopWhenDiverged
from ftc.data import ArrayReader, ImageCache, Loading, PartitionedDataModule, Preprocessing
from ftc.finetune import Full, build_optimizer, build_scheduler
from ftc.models import Classifier, create_classifier

pytestmark = pytest.mark.slow
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CLASSES = 65
# Dense bfloat16 peaks in FLOP/s, from the makers' data sheets.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


class Repeated:
    """A loader of one batch, so many times."""

    def __init__(self, batch: dict[str, torch.Tensor], times: int) -> None:
        self.batch = batch
        self.times = times

    def __len__(self) -> int:
        return self.times

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return repeat(self.batch, self.times)


@dataclass(frozen=True)
class Setting:
    """What is trained, and how many steps are timed after so many to warm up."""

    accelerator: str
    size: int
    batch: int
    warm_up: int
    steps: int
    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.accelerator == "gpu" else "cpu")

    def classifier(self) -> Classifier:
        torch.manual_seed(0)
        classifier = create_classifier("resnet50", CLASSES).to(self.device)
        if self.channels_last:
            classifier.use_channels_last()
        if self.compile:
            classifier.backbone.compile()
        return classifier

    def batches(self) -> Repeated:
        """The same random batch again and again, where the model is."""
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(self.device)
        target = torch.randint(0, CLASSES, (self.batch,), generator=generator).to(self.device)
        return Repeated({"image": image, "target": target}, self.warm_up + self.steps)


@pytest.fixture(scope="module")
def report() -> Iterator[Callable[..., None]]:
    rows: list[tuple[str, ...]] = []
    yield lambda *row: rows.append(row)
    machine = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    )
    table = Table(title=f"ResNet-50, torch {torch.__version__}, timm {timm.__version__}, {machine}; images/s")
    for column in ("what", "ours", "hand-written", "ratio (goal)", "of bf16 peak", "GPU memory"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(Callback):
    """Times the steps behind the first few."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.started = self.seconds = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.setting.warm_up:
            self.started = now(self.setting.device)
        if batch_idx + 1 == self.setting.warm_up + self.setting.steps:
            self.seconds = now(self.setting.device) - self.started


OPTIMIZER = {"name": "sgd", "lr": 1e-3, "weight_decay": 5e-4}


def ours(setting: Setting, classifier: Classifier, batches, folder) -> float:
    """Seconds of Lightning, our module and callbacks."""
    module = FineTuneModule(classifier, partial(build_optimizer, **OPTIMIZER), build_scheduler)
    clock = Clock(setting)
    calibration = CalibrationCallback(ClassPartition.random(CLASSES, 30), head="classifier.head")
    callbacks = [StopWhenDiverged(), SeedSteps(0), Checkpointing(folder / "last.ckpt"), calibration, clock]
    trainer = Trainer(
        callbacks=callbacks,
        accelerator=setting.accelerator,
        devices=1,
        precision=setting.precision,
        max_epochs=1,
        logger=False,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, batches)
    return clock.seconds


def by_hand(setting: Setting, classifier: Classifier, batches) -> float:
    """Seconds of the loop that one would write."""
    classifier.to(setting.device).train()
    optimizer = build_optimizer(Full().parameter_groups(classifier), **OPTIMIZER)
    scheduler = build_scheduler(optimizer, len(batches))
    started = 0.0
    mixed = setting.precision == "bf16-mixed"
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=mixed):
            loss = torch.nn.functional.cross_entropy(classifier(batch["image"]), batch["target"])
        loss.backward()
        optimizer.step()
        scheduler.step_update(step)
        if step == setting.warm_up:
            started = now(setting.device)
    return now(setting.device) - started


def images_a_second(setting: Setting, seconds: float) -> float:
    return setting.batch * setting.steps / seconds


def compared(setting: Setting, folder, turns: int = 3) -> tuple[float, float]:
    """Images/s of the fastest of several turns: ours, by hand."""
    first, second = setting.classifier(), setting.classifier()
    batches = setting.batches()
    times = [(ours(setting, first, batches, folder), by_hand(setting, second, batches)) for _ in range(turns)]
    a, b = (images_a_second(setting, min(column)) for column in zip(*times, strict=True))
    return a, b


def peak_share(setting: Setting, images: float) -> str:
    """Share of the chip's bfloat16 peak that the model's operations make use of."""
    peak = next((v for name, v in PEAKS.items() if name in torch.cuda.get_device_name()), None)
    if peak is None:
        return "unknown"
    model, image = setting.classifier(), setting.batches().batch["image"][:2]
    with FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return f"{images * counter.get_total_flops() / 2 / peak:.1%}"


def test_training_on_the_cpu(report, tmp_path):
    setting = Setting("cpu", size=64, batch=32, warm_up=2, steps=10)
    fast, baseline = compared(setting, tmp_path)
    report(
        "CPU, 64 px, batch 32, 32-true",
        f"{fast:.1f}",
        f"{baseline:.1f}",
        f"{fast / baseline:.3f}× (≥ 0.97×)",
        "",
        "",
    )
    assert fast / baseline > 0.9


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("batch", [64, 256])
def test_training_on_a_gpu(report, tmp_path, batch):
    setting = Setting("gpu", 224, batch, 20, 100, "bf16-mixed", channels_last=True, compile=True)
    torch.compiler.reset()  # or the second size of batches would be compiled for any size
    torch.cuda.reset_peak_memory_stats()
    fast, baseline = compared(setting, tmp_path)
    memory = torch.cuda.max_memory_allocated() / 2**30
    setting = Setting("gpu", 224, batch, 20, 100)
    report(
        f"GPU, 224 px, batch {batch}, bf16-mixed, channels_last, compile",
        f"{fast:,.0f}",
        f"{baseline:,.0f}",
        f"{fast / baseline:.3f}× (≥ 0.97×)",
        peak_share(setting, fast),
        f"{memory:.1f} GiB, both models",
    )
    assert fast / baseline > 0.9


@needs_gpu
@pytest.mark.gpu
def test_training_from_cached_images_on_a_gpu(report, tmp_path):
    from torchvision.transforms import v2

    setting = Setting("gpu", 224, 64, 20, 100, "bf16-mixed", channels_last=True, compile=True)
    synthetic = images_a_second(setting, ours(setting, setting.classifier(), setting.batches(), tmp_path))
    classifier = setting.classifier()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2000, 300, 300, 3), dtype=torch.uint8, generator=generator).numpy()
    reader = ArrayReader(images, torch.arange(2000).numpy() % CLASSES, tuple(map(str, range(CLASSES))))
    augmentation = [v2.RandomResizedCrop(224, scale=(0.7, 1.0)), v2.RandomHorizontalFlip()]
    augmentation += [v2.ColorJitter(0.3, 0.3, 0.3, 0.3), v2.RandomGrayscale(0.1)]
    data = PartitionedDataModule(
        reader,
        ClassPartition(CLASSES, seen=range(CLASSES)),
        Preprocessing(classifier.data_config, augmentation),
        loading=Loading(
            cache=ImageCache(tmp_path),
            batch_size=setting.batch,
            iterations_per_epoch=setting.warm_up + setting.steps,
            num_workers=8,
        ),
    )
    cached = images_a_second(setting, ours(setting, classifier, data, tmp_path))
    report(
        "GPU, batch 64, cached images of 300 px, published transforms",
        f"{cached:,.0f}",
        f"{synthetic:,.0f} (ours, synthetic)",
        f"{cached / synthetic:.3f}× (≥ 0.9×)",
        "",
        "",
    )
