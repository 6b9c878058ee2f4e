"""What each kind of tracker is sent beyond the scalars that Lightning logs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, TypeVar
from weakref import WeakSet

import numpy as np
from attrs import frozen
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image

from ftc.callbacks.charts import Chart
from ftc.metrics.scale import ScaleSummary
from ftc.reporting.table import Grid

P = ParamSpec("P")
T = TypeVar("T")

Value = str | float | None


@frozen
class EvaluationPanel:
    """An evaluation, as it is shown.

    Attributes:
        stage: ``val`` or ``test``.
        epoch: epoch of the model, −1 for the source model.
        step: the step at which Lightning logs its scalars.
        chart: its seen–absent curve; None where no absent-class samples were evaluated.
        scale: its histograms of logits.
    """

    stage: str
    epoch: int
    step: int
    chart: Chart | None
    scale: ScaleSummary


@frozen
class ResultsPanel:
    """A finished run, as it is shown.

    Attributes:
        step: training steps that it took.
        scalars: the main scalars of its stages.
        header, rows: the table of its stages; accuracies are fractions.
        figures: its figures, PNG files.
        files: files to send, by the name of the artifact that they make up.
    """

    step: int
    scalars: Mapping[str, float]
    header: Sequence[str]
    rows: Sequence[Sequence[Value]]
    figures: Sequence[Path]
    files: Mapping[str, Sequence[Path]]


class Tracker:
    """A logger that is known to take scalars alone, such as one's own."""

    title: ClassVar[str] = ""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def show_evaluation(self, panel: EvaluationPanel) -> None:
        """Send curve and histograms of an evaluation, where there is a way."""

    def show_results(self, panel: ResultsPanel) -> None:
        """Send the results of a finished run."""
        self.logger.log_metrics(panel.scalars, panel.step)

    def close(self, finished: bool) -> None:
        """End the tracker's run.

        Args:
            finished: whether the run was.
        """
        self.logger.finalize("success" if finished else "failed")

    def abandon(self) -> None:
        """Let go of what failed."""


class _Wandb(Tracker):
    title = "W&B"

    def show_evaluation(self, panel: EvaluationPanel) -> None:
        import wandb

        stage, edges = panel.stage, panel.scale.edges.numpy()
        payload: dict[str, Any] = {f"{stage}/epoch": panel.epoch}
        if panel.chart is not None:
            # Charts of wandb.plot have one kind of mark, drawn by specifications on W&B's server, and show
            # the latest epoch alone. Curves with markers, and a slider over epochs, are Plotly's.
            payload[f"{stage}/curve"] = wandb.Plotly(Figure(panel.chart.plotly()))
        for name, counts in panel.scale.histograms.items():
            payload[f"{stage}/{name}_histogram"] = wandb.Histogram(np_histogram=(counts.numpy(), edges))
        self.logger.experiment.log(payload)

    def show_results(self, panel: ResultsPanel) -> None:
        import wandb

        run = self.logger.experiment
        # In the summary alone, by which W&B sorts runs and steers sweeps: one point makes no chart.
        run.summary.update(dict(panel.scalars))
        table = wandb.Table(columns=list(panel.header), data=[list(row) for row in panel.rows])
        run.log({"results/table": table, **{_key(path): wandb.Image(str(path)) for path in panel.figures}})
        for name, paths in panel.files.items():
            artifact = wandb.Artifact(f"{name}-{run.id}", type=name)
            for path in paths:
                # A finished run's files stay as they are, so that offline runs need no copies.
                artifact.add_file(str(path.resolve()), policy="immutable")
            run.log_artifact(artifact)

    def close(self, finished: bool) -> None:
        self.logger.experiment.finish(exit_code=0 if finished else 1)

    def abandon(self) -> None:
        import wandb

        wandb.teardown()


class Figure:
    """JSON in the guise of Plotly's figure, which W&B asks for this alone and knows by its full name."""

    __module__ = "plotly.graph_objs"

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def to_plotly_json(self) -> dict[str, Any]:
        return self._content


class _TensorBoard(Tracker):
    title = "TensorBoard"

    def show_evaluation(self, panel: EvaluationPanel) -> None:
        writer, step = self.logger.experiment, panel.step
        if panel.chart is not None:
            writer.add_image(f"{panel.stage}/curve", panel.chart.image(), step, dataformats="HWC")
        edges = panel.scale.edges.numpy()
        middles = (edges[1:] + edges[:-1]) / 2
        for name, counts in panel.scale.histograms.items():
            weights = counts.numpy()
            writer.add_histogram_raw(
                f"{panel.stage}/{name}_histogram",
                min=edges[0],
                max=edges[-1],
                num=int(weights.sum()),
                # Of the bins' middles, as the samples themselves are gone.
                sum=float(weights @ middles),
                sum_squares=float(weights @ middles**2),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=weights.tolist(),
                global_step=step,
            )

    def show_results(self, panel: ResultsPanel) -> None:
        super().show_results(panel)
        writer = self.logger.experiment
        rows = [[_printed(cell) for cell in row] for row in panel.rows]
        writer.add_text("results/table", Grid.of_texts("", panel.header, rows).markdown(), panel.step)
        for path in panel.figures:
            writer.add_image(_key(path), _pixels(path), panel.step, dataformats="HWC")


class _MLflow(Tracker):
    title = "MLflow"

    def show_evaluation(self, panel: EvaluationPanel) -> None:
        if panel.chart is not None:
            client, run = self.logger.experiment, self.logger.run_id
            client.log_image(run, panel.chart.image(), key=f"{panel.stage}/curve", step=panel.step)

    def show_results(self, panel: ResultsPanel) -> None:
        super().show_results(panel)
        client, run = self.logger.experiment, self.logger.run_id
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([panel.header, *panel.rows])
        client.log_text(run, text.getvalue(), "results/table.csv")
        for path in panel.figures:
            client.log_artifact(run, str(path), "figures")
        for name, paths in panel.files.items():
            for path in paths:
                client.log_artifact(run, str(path), name)

    def close(self, finished: bool) -> None:
        self.logger.experiment.set_terminated(self.logger.run_id, "FINISHED" if finished else "FAILED")


_KINDS: dict[type[Logger], type[Tracker]] = {
    WandbLogger: _Wandb,
    TensorBoardLogger: _TensorBoard,
    MLFlowLogger: _MLflow,
}


def tracker(logger: Logger) -> Tracker:
    """The ways of a logger."""
    kinds = (known for kind, known in _KINDS.items() if isinstance(logger, kind))
    return next(kinds, Tracker)(logger)


# Loggers that failed.
_failed: WeakSet[Logger] = WeakSet()


def forgiving(logger: Logger, call: Callable[P, T]) -> Callable[P, T | None]:
    """A call to a logger that ends no training: when one fails, a warning says so, and no more are made."""

    @wraps(call)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> T | None:
        if logger in _failed:
            return None
        try:
            return call(*args, **kwargs)
        except Exception as error:  # the errors of trackers share no base class
            _failed.add(logger)
            known = tracker(logger)
            title = known.title or type(logger).__name__
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            rank_zero_warn(f"{title} failed ({reason}); nothing more is logged there; what it has stays")
            with suppress(Exception):
                known.abandon()
            return None

    return attempt


def _key(figure: Path) -> str:
    return f"figures/{figure.stem}"


def _printed(cell: Value) -> str:
    if cell is None:
        return "–"
    return cell if isinstance(cell, str) else f"{cell:.4f}"


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
