"""A table as data: what is printed, the numbers behind it, and its forms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from attrs import field, frozen

from ftc.reporting.names import decimal


@frozen
class Cell:
    """A cell of a table.

    Attributes:
        text: what is printed.
        numbers: the numbers behind it by name, in the unit of the text and at full precision.
        unit: ``percent``, ``points`` (differences of percents), or ``logits``.
        best: whether it is the best of those that it is compared with.
        bound: whether it looked at the labels that it is evaluated by; it is never the best.
    """

    text: str
    numbers: Mapping[str, float | int | None] = field(factory=dict)
    unit: str = "percent"
    best: bool = False
    bound: bool = False


@frozen
class Grid:
    """A table.

    Attributes:
        title: its title.
        header: titles of the columns; the first ``labels`` of them hold words, the others numbers.
        rows: its cells, as many a row as there are columns.
        labels: how many columns say what a row is.
        notes: what a reader must know, in sentences.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()

    @classmethod
    def of_texts(
        cls, title: str, header: Sequence[str], rows: Sequence[Sequence[Cell | str]], labels: int = 1
    ) -> Grid:
        """A table of cells, or of texts alone."""
        cells = (tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
        return cls(title, tuple(header), tuple(cells), labels)

    def markdown(self) -> str:
        """The table in Markdown, the best cells in bold, with neither title nor notes."""
        rule = "|---" * self.labels + "|--:" * (len(self.header) - self.labels) + "|"
        rows = ([f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in self.rows)
        return "\n".join([f"| {' | '.join(self.header)} |", rule, *(f"| {' | '.join(r)} |" for r in rows)])

    def latex(self) -> str:
        """The table in LaTeX by booktabs, title and notes as its caption; the preamble needs booktabs."""
        columns = "l" * self.labels + "r" * (len(self.header) - self.labels)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(' '.join([f'{self.title}.', *self.notes]))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(self.header),
            r"\midrule",
            *(_latex_row([cell.text for cell in row], [cell.best for cell in row]) for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines)

    def tidy(self) -> Iterator[dict[str, Any]]:
        """One record for each cell with numbers: table, the row's words, the column, and the numbers."""
        for row in self.rows:
            words = zip(self.header, row[: self.labels], strict=False)
            of_row = {"table": self.title, **{name or "row": cell.text for name, cell in words}}
            for name, cell in zip(self.header, row, strict=True):
                if cell.numbers:
                    told = {"best": cell.best, "bound": cell.bound}
                    yield {**of_row, "column": name, "unit": cell.unit, **cell.numbers, **told}


# What LaTeX wants spelt out; the rest of our texts it takes as they are.
_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "γ": r"$\gamma$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "π": r"$\pi$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "→": r"$\to$",
    "∪": r"$\cup$",
    "≥": r"$\ge$",
    "≤": r"$\le$",
    "…": r"\dots{}",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _latex_row(texts: Sequence[str], best: Sequence[bool] = ()) -> str:
    spelt = [_latex(text) for text in texts]
    bold = [rf"\textbf{{{t}}}" if b else t for t, b in zip(spelt, best or [False] * len(spelt), strict=True)]
    return " & ".join(bold) + r" \\"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def mean(values: Sequence[float]) -> Cell:
    """A mean with one digit behind the point."""
    found = fmean(values)
    return Cell(decimal(found, 1), {"mean": found, "n": len(values)})


def mean_difference(values: Sequence[float]) -> Cell:
    """A mean with its sign, and its standard error where there is more than one value."""
    found = fmean(values)
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    text = signed(found) + ("" if error is None else f" ± {error:.1f}")
    return Cell(text, {"mean": found, "standard_error": error, "n": len(values)}, "points")
