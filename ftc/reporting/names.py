"""The printed names of metrics and stages."""

from ftc.results import LANES, METRICS, Lane, StageRecord

# Columns of a run's table, and of the table of its bootstrap intervals.
COLUMNS = {
    name: METRICS[name]
    for name in (
        *("acc_all", "acc_seen", "acc_absent", "acc_seen_within", "acc_absent_within"),
        *("harmonic", "ausuc", "ncm_acc_all"),
    )
}
INTERVAL_COLUMNS = {
    name: METRICS[name] for name in ("acc_all", "acc_seen", "acc_absent", "harmonic", "ausuc")
}


def stage_title(name: str, stage: StageRecord) -> str:
    """A stage's name in print: a calibrator's title, else its key made readable."""
    return stage.title or readable(name)


def readable(key: str) -> str:
    """A stage's key made readable, where its record is not at hand or has no title."""
    return "fine-tuned" if key == "fine_tuned" else key.replace("_", " ")


def key_title(key: str) -> str:
    """A key of the configuration in print: its last part, or the one before where that says what it is of."""
    *before, last = key.split(".")
    return readable(before[-1] if before and last in ("name", "kind", "_target_") else last)


def lane_title(lane: Lane) -> str:
    """The title of a lane's table."""
    return f"{LANES[lane][0].upper()}{LANES[lane][1:]}"


def decimal(value: float, digits: int = 2) -> str:
    """A number, with a minus that is as wide as a plus."""
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction in percent; a dash for None."""
    return "–" if value is None else decimal(100 * value, 1)
