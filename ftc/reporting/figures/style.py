"""What all figures share: colours, line styles and markers, and how a figure is written."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure

from ftc.files import written_whole
from ftc.results import RunRecord, StageRecord

Format = Literal["png", "pdf", "svg"]

# Okabe and Ito's palette, which readers with any colour vision can tell apart.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
NCM = "#56B4E9"
SEEN, ABSENT, ALL = BLUE, RED, GREY
# The palette's yellow is made darker, since lines in it would hardly show on white.
CALIBRATORS = [GREEN, PURPLE, ORANGE, "#8C564B", "#B5A400"]
GROUPS = {"seen": SEEN, "absent": ABSENT, "others": ALL}
GROUP_MARKERS = {"seen": "o", "absent": "^", "others": "s"}
LINES = ("-", "--", "-.", ":")
# Their number differs from that of the colours, so that no two calibrators share both.
MARKERS = "DsvP^Xd"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    # Fonts that publishers take, and names inside SVG that do not change from file to file.
    "pdf.fonttype": 42,
    "svg.hashsalt": "ftc",
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, in the format of the path's suffix.

    Equal figures give equal files: no file says when or by which version it was made. Text in PDF stays text,
    in fonts that publishers take.
    """
    undated: dict[str, Any] = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
        "svg": {"Creator": None, "Date": None},
    }
    kind = path.suffix[1:]
    with matplotlib.rc_context(STYLE), written_whole(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=undated[kind])


def calibrators_of(record: RunRecord) -> dict[str, StageRecord]:
    """The calibrators of a run by name, without oracles."""
    return {name: stage for name, stage in record.stages.calibrated.items() if stage.lane != "oracle"}


def titled(figure: Figure, *lines: str) -> None:
    """Give a figure a title that is no wider than itself."""
    width = int(9 * figure.get_figwidth())
    figure.suptitle("\n".join(fill(line, width) for line in lines))


def short(name: str, most: int = 20) -> str:
    """A class's name, cut where it is long."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def legend_below(axes: Any) -> None:
    """Put the legend where it covers nothing."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) <= 3 else 2
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=columns)
