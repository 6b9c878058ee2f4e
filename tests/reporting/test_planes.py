"""Planes of points and regions, drawn whatever the regions are."""

from __future__ import annotations

import numpy as np
import pytest

from ftc.reporting.figures.planes import Plane, feature_planes

NAMES = ("ant", "bee", "cat")


def plane(regions, behind=None) -> Plane:
    drawn = np.random.default_rng(0).standard_normal((900, 2))
    return Plane("model", drawn, regions, (-3.0, 3.0, -3.0, 3.0), behind)


@pytest.mark.parametrize("one", [0, 2])
def test_a_class_that_takes_all_or_nothing(one):
    regions = np.full((50, 50), one)
    few = regions.copy()
    few[0, 0] = 1  # so small that no name's place is tried in it
    figure = feature_planes("run", {"features": [plane(regions), plane(few)]}, np.arange(900) % 3, NAMES, [0])
    texts = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    assert texts == [{NAMES[one]}, {NAMES[one], "bee"}]
    figure.canvas.draw()


def test_seen_classes_are_filled_and_absent_ones_hollow():
    target = np.arange(900) % 3
    behind = np.zeros((5, 2))
    figure = feature_planes("run", {"input": [plane(np.eye(50, dtype=int), behind)]}, target, NAMES, [1])
    (legend,) = figure.legends
    looks = {
        t.get_text(): h.get_markerfacecolor()
        for t, h in zip(legend.texts, legend.legend_handles, strict=True)
    }
    assert list(looks) == ["ant, absent", "bee, seen", "cat, absent", "source domain"]
    assert looks["ant, absent"] == looks["cat, absent"] == "white" != looks["bee, seen"]
    assert figure.get_suptitle() == "run, 400 of 900 points"
