"""Charts for loggers: curves and histograms."""

from __future__ import annotations

from lightning.pytorch.loggers import Logger, WandbLogger

from ftc.evaluation.summary import Evaluation

# W&B draws at most this many rows of a table; curves in run folders are complete.
CURVE_POINTS = 200


def log_charts(loggers: list[Logger], stage: str, evaluation: Evaluation) -> None:
    """Send the curve (table and line plot) and the logit histograms of an epoch to every W&B logger."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.log(_wandb_payload(stage, evaluation))


def _wandb_payload(stage: str, evaluation: Evaluation) -> dict[str, object]:
    import wandb

    curve = evaluation.curve.thin(CURVE_POINTS)
    columns = ["gamma", "acc_seen", "acc_absent", "acc_all"]
    rows = zip(*(getattr(curve, column).tolist() for column in columns), strict=True)
    table = wandb.Table(columns=columns, data=[list(row) for row in rows])
    title = f"Seen–absent curve, {stage}"
    payload: dict[str, object] = {
        f"{stage}/epoch": evaluation.epoch,
        # W&B logs the plot's table as well, as …/curve_table.
        f"{stage}/curve": wandb.plot.line(table, "acc_seen", "acc_absent", title=title),
    }
    edges = evaluation.scale.edges.numpy()
    for name, counts in evaluation.scale.histograms.items():
        payload[f"{stage}/{name}_histogram"] = wandb.Histogram(np_histogram=(counts.numpy(), edges))
    return payload
