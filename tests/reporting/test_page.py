"""The page says what Python says: its data are exact, its texts are harmless, and it works in a browser."""

from __future__ import annotations

import base64
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ftc import ClassPartition
from ftc.functional import accuracies, partition_accuracy, reduce_logits, seen_absent_curve
from ftc.reporting.page import PageRun, _drawn, page_html
from ftc.runs import page
from ftc.runs.page import write_page
from tests.pages import CALIBRATORS, chromium, epoch_rows, finished_run, flips, screen
from tests.reporting.test_reporting import record

PARTITION = ClassPartition(9, seen=[0, 2, 4, 5], absent=[1, 3, 7])
EVIL = "</script><img src=x onerror=alert(1)>"
NAMES = [EVIL, *(f"class {i}" for i in range(1, 8)), "'\"&<b>"]
METRICS = (
    "acc_all",
    "acc_seen",
    "acc_absent",
    "harmonic",
    "balanced",
    "acc_seen_within",
    "acc_absent_within",
)


def data_of(text: str) -> list[dict[str, Any]]:
    """The data of every run in a page."""
    return [
        json.loads(found)
        for found in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)
    ]


def array(encoded: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(encoded["base64"]), np.dtype(encoded["type"]).newbyteorder("<"))


class Elements(HTMLParser):
    """Names of a page's elements, and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


def simple(content=None, **fields) -> PageRun:
    content = content or record()
    return PageRun(content, "run", [f"class {i}" for i in range(12)], {"seed": 3}, **fields)


def test_texts_from_elsewhere_stay_texts():
    content = record(title=EVIL, method=EVIL, experiment="toy")
    run = PageRun(content, EVIL, [EVIL] * 12, {EVIL: {EVIL: EVIL}}, differs={EVIL: EVIL}, notes=[EVIL])
    text = page_html([run, run], {EVIL: EVIL})
    found = Elements(text).found
    assert not [attributes for tag, attributes in found if tag == "img" or "onerror" in attributes]
    assert [tag for tag, _ in found].count("script") == 3
    assert data_of(text)[0]["classes"] == [EVIL] * 12
    assert text.count("<!doctype") == 1


def test_page_asks_the_network_for_nothing():
    text = page_html([simple()], {})
    policy = next(a["content"] for tag, a in Elements(text).found if "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "img-src data:" in policy
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_tables_keep_lanes_apart_and_need_no_script():
    text = page_html([simple(notes=["No epochs."])], {"commit": "abc"})
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    seen_only = next(t for t in tables if "on labelled seen target images</caption>" in t)
    unlabelled = next(t for t in tables if "with unlabelled target images</caption>" in t)
    assert "mine *" in seen_only and "prior-matched" not in seen_only
    assert "prior-matched" in unlabelled and "mine" not in unlabelled
    assert all('<tr class="oracle">' in t and "a bound" in t for t in (seen_only, unlabelled))
    for said in ("absent classes gain", "No epochs.", "<noscript>", "abc", "1,200 seen, 40 absent"):
        assert said in text


def test_what_does_not_apply_is_left_out():
    text = page_html([simple(record(absent_evaluated=False, source=None, calibrated={}, deployed=None))], {})
    assert "U/Y</th>" not in text.split("<article")[1]
    (data,) = data_of(text)
    assert data["models"] == [] and data["curves"] == {} and data["calibrators"] == []


def test_later_runs_beyond_the_budget_have_drawn_curves_alone(tmp_path, monkeypatch):
    runs = [finished_run(tmp_path / f"run{i}", PARTITION, seed=i) for i in range(3)]
    write_page(tmp_path / "whole.html", runs, {})
    whole = (tmp_path / "whole.html").read_text()
    assert all(data["models"] for data in data_of(whole))
    monkeypatch.setattr(page, "MOST_IMAGES", 1)
    write_page(tmp_path / "small.html", runs, {})
    small = (tmp_path / "small.html").read_text()
    first, *others = data_of(small)
    assert first["models"] and not first["curves"]
    for data in others:
        assert not data["models"] and data["target"] is None
        assert set(data["curves"]) == {"source", "fine_tuned"}
    assert small.count("To keep the page small") == 2 and "To keep the page small" not in whole


def test_curves_are_thinned_where_nobody_sees_it():
    seen, absent = np.linspace(1, 0, 20_000), np.linspace(0, 1, 20_000) ** 3
    drawn = _drawn(seen.tolist(), absent.tolist(), 128)
    x, y = np.array(drawn["seen"]), np.array(drawn["absent"])
    assert len(x) < 260
    assert (x[0], y[0], x[-1], y[-1]) == (1, 0, 0, 1)
    # Between kept points the curve stays within a cell of the line.
    assert np.abs(np.interp(1 - seen, 1 - x, y) - absent).max() < 1 / 128
    assert _drawn([0.5, None], [0.1, 0.2], 128) is None


@pytest.mark.parametrize("average", ["sample", "class"])
@pytest.mark.parametrize("others", [True, False])
def test_embedded_data_give_every_recorded_accuracy(tmp_path, average, others):
    partition = PARTITION if others else ClassPartition(8, seen=[0, 2, 4, 5, 6], absent=[1, 3, 7])
    run = finished_run(tmp_path / "run", partition, average=average)
    write_page(tmp_path / "page.html", [run], {})
    (data,) = data_of((tmp_path / "page.html").read_text())
    target, groups = array(data["target"]), np.array(data["groups"])
    for calibrator in data["calibrators"]:
        model = next(m for m in data["models"] if m["name"] == calibrator["model"])
        predicted = np.where(
            calibrator["gamma"] > array(model["margin"]), array(model["absent"]), array(model["fixed"])
        )
        hit = predicted == target
        metrics = run.record.stages.calibrated[calibrator["name"]].metrics
        for name, rows in (
            ("acc_all", groups[target] < 3),
            ("acc_seen", groups[target] == 1),
            ("acc_absent", groups[target] == 2),
        ):
            if average == "sample":
                assert hit[rows].sum() / rows.sum() == metrics[name]
            else:
                by_class = [hit[target == c].mean() for c in np.unique(target[rows])]
                assert np.mean(by_class) == pytest.approx(metrics[name], abs=1e-14)
        for name, value in model["unmoved"].items():
            assert value == metrics[name]
    assert {c["name"]: c["model"] for c in data["calibrators"]} == {
        **{name: name if own else "fine_tuned" for name, (_, _, own) in CALIBRATORS.items()},
        "oracle": "fine_tuned",
    }


def test_an_evaluated_checkpoint_is_called_so(tmp_path):
    run = finished_run(tmp_path / "run", PARTITION, checkpoint=True)
    (data,) = data_of(write_page(tmp_path / "page.html", [run], {}).read_text())
    assert [model["title"] for model in data["models"]][:2] == ["source", "checkpoint"]
    assert {c["name"]: c["model"] for c in data["calibrators"]}["alg"] == data["main"] == "checkpoint"


# ---- in a browser ----------------------------------------------------------------------------------------


class Page:
    """A page that is open in a browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.browser = browser
        browser.get(path.as_uri())
        assert self.js("return document.documentElement.dataset.ready") is not None, self.errors()

    def js(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]

    def settled(self) -> None:
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => setTimeout(done))"
        )

    def give(self, name: str, value: float) -> None:
        """Set an input as a user does."""
        self.js(
            "const i = document.getElementById(arguments[0]); i.value = arguments[1];"
            "i.dispatchEvent(new Event('input'));",
            *(name, value),
        )
        self.settled()

    def press(self, name: str, *keys: str) -> None:
        self.browser.find_element("id", name).send_keys(*keys)
        self.settled()

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)
        self.settled()

    def accuracies(self) -> dict[str, float | None]:
        cells = self.js(
            "return [...document.querySelectorAll('#accuracies [data-metric]')]"
            ".map(c => [c.dataset.metric, c.value])"
        )
        return {name: float(value) for name, value in cells}

    def text(self, name: str) -> str:
        return self.js("return document.getElementById(arguments[0]).textContent", name)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module", params=["sample", "class"])
def shown(request, tmp_path_factory, browser):
    """A run with columns of other classes, and its open page."""
    folder = tmp_path_factory.mktemp("page")
    run = finished_run(
        folder / "run", PARTITION, 500, names=NAMES, average=request.param, epochs=epoch_rows(5)
    )
    screen(browser, 1280)
    return run, Page(browser, write_page(folder / "page.html", [run], {"command": "x"}))


@pytest.mark.browser
def test_every_calibrators_accuracies_are_the_recorded_ones(shown):
    run, shown_page = shown
    for name, stage in run.record.stages.calibrated.items():
        shown_page.click(f'.tick[data-name="{name}"]')
        for metric, value in shown_page.accuracies().items():
            assert value == pytest.approx(stage.metrics[metric], abs=1e-14), (name, metric)
        assert shown_page.js("return document.querySelectorAll('.tick[aria-pressed=true]').length") == 1
    assert shown_page.errors() == []


@pytest.mark.browser
def test_accuracies_and_flips_at_any_gamma(shown):
    run, shown_page = shown
    saved, draw, average = run.outputs(), random.Random(0), run.calibration.average
    for name in ("fine_tuned", "source", "prototypes"):
        shown_page.js(
            "const m = document.getElementById('model'); m.value = arguments[0];"
            "m.dispatchEvent(new Event('change'))",
            name,
        )
        logits, target = saved.of(name, "test", "logits"), saved.of(name, "test", "target")
        outcomes = reduce_logits(logits, target, PARTITION)
        # A margin that is γ itself stays.
        ties = outcomes.margin[torch.arange(0, 500, 50)].tolist()
        for gamma in (0.0, *ties, *(draw.uniform(-5, 5) for _ in range(10)), 1e3, -1e3):
            shown_page.give("gamma-number", gamma)
            expected = accuracies(outcomes, PARTITION, gamma, average)
            found = shown_page.accuracies()
            for metric in METRICS:
                assert found[metric] == pytest.approx(expected[metric], abs=1e-14), (name, gamma, metric)
            count = shown_page.js("return Number(document.getElementById('flip-count').dataset.count)")
            assert count == flips(logits, PARTITION, gamma)
            rows = shown_page.js("return document.querySelectorAll('#flips tbody tr').length")
            assert rows == min(count, 50)
    assert shown_page.errors() == []


@pytest.mark.browser
def test_slider_moves_by_keys_and_says_where_it_is(shown):
    run, shown_page = shown
    shown_page.click('.tick[data-name="fine_tuned"]')
    shown_page.press("gamma", *["\ue014"] * 12)  # arrow right
    gamma = shown_page.js("return Number(document.getElementById('gamma').value)")
    assert gamma > 0
    assert shown_page.js("return Number(document.getElementById('gamma-number').value)") == gamma
    saved = run.outputs()
    expected = partition_accuracy(
        saved.of("fine_tuned", "test", "logits"),
        saved.of("fine_tuned", "test", "target"),
        PARTITION,
        gamma,
        average=run.calibration.average,
    )
    assert shown_page.accuracies()["acc_absent"] == pytest.approx(expected["acc_absent"], abs=1e-14)
    said = shown_page.js("return document.getElementById('gamma').getAttribute('aria-valuetext')")
    assert f"U/Y {100 * expected['acc_absent']:.1f} percent" in said


@pytest.mark.browser
def test_share_slider_gives_expected_accuracy_and_the_bound(shown):
    run, shown_page = shown
    shown_page.click('.tick[data-name="alg"]')
    saved = run.outputs()
    curve = seen_absent_curve(
        saved.of("fine_tuned", "test", "logits"),
        saved.of("fine_tuned", "test", "target"),
        PARTITION,
        run.calibration.average,
    )
    now = shown_page.accuracies()
    for percent in (0, 10, 35, 80, 100):
        shown_page.give("share", percent)
        share = percent / 100
        scores = (1 - share) * curve.acc_seen + share * curve.acc_absent
        value = shown_page.js("return Number(document.querySelector('#share-now data').value)")
        assert value == pytest.approx((1 - share) * now["acc_seen"] + share * now["acc_absent"], abs=1e-12)
        best = shown_page.js("return Number(document.getElementById('share-oracle').value)")
        assert best == pytest.approx(float(scores.max()), abs=1e-12)
        gamma = float(shown_page.js("return document.getElementById('share-text').dataset.best"))
        at = curve.at(gamma)
        reached = (1 - share) * at["acc_seen"] + share * at["acc_absent"]
        assert reached == pytest.approx(float(scores.max()), abs=1e-12)
    assert "oracle: looks at test labels" in shown_page.text("share-text")


@pytest.mark.browser
def test_epoch_slider(shown):
    _, shown_page = shown
    assert shown_page.js("return document.getElementById('epoch').max") == "4"
    shown_page.press("epoch", "\ue011")  # home
    assert "−1 (source model)" in shown_page.text("epoch-text")
    assert "−0.50" in shown_page.text("epoch-seen_only")
    shown_page.press("epoch", "\ue014", "\ue014")
    assert (
        "Epoch 1, γ = 0: Y/Y\u00a050.0\u00a0% S/Y\u00a061.0\u00a0% U/Y\u00a025.0\u00a0%"
        in shown_page.text("epoch-text")
    )


@pytest.mark.browser
def test_names_of_classes_are_harmless_in_the_page(shown):
    _, shown_page = shown
    shown_page.give("gamma-number", 2)
    assert EVIL in shown_page.text("classes")
    assert shown_page.js("return document.querySelectorAll('img').length") == 0
    assert shown_page.errors() == []


@pytest.mark.browser
def test_runs_are_picked_and_sorted_by_keyboard(tmp_path, browser):
    methods = ("Full", "LoRA", "BitFit")
    runs = [
        finished_run(tmp_path / f"run{i}", PARTITION, 100 + 50 * i, seed=10 * i, method=name)
        for i, name in enumerate(methods)
    ]
    shown_page = Page(browser, write_page(tmp_path / "page.html", runs, {}))
    buttons = browser.find_elements("css selector", "#runs .sort")
    named = {button.text.replace("\n", " "): button for button in buttons}
    assert {"method._target_", "AUSUC"} <= set(named)

    def order() -> list[int]:
        return shown_page.js(
            "return [...document.querySelectorAll('#runs tbody tr')].map(r => Number(r.dataset.row))"
        )

    ausuc = [run.record.stages.fine_tuned.metrics["ausuc"] for run in runs]
    named["AUSUC"].send_keys("\ue007")  # enter
    assert order() == sorted(range(3), key=lambda i: -ausuc[i])
    named["AUSUC"].send_keys("\ue007")
    assert order() == sorted(range(3), key=lambda i: ausuc[i])
    assert shown_page.js("return document.querySelectorAll('#runs [aria-sort=ascending]').length") == 1
    named["method._target_"].send_keys(" ")
    assert [methods[i] for i in order()] == ["LoRA", "Full", "BitFit"]
    browser.find_element("css selector", '[data-pick="2"]').send_keys("\ue007")
    assert "200 test images" in shown_page.text("accuracies")
    assert shown_page.js("return [...document.querySelectorAll('article')].map(a => a.hidden)") == [
        True,
        True,
        False,
    ]
    shown_page.click('.tick[data-name="interpolated"]')
    recorded = runs[2].record.stages.calibrated["interpolated"].metrics["acc_all"]
    assert shown_page.accuracies()["acc_all"] == recorded
    assert shown_page.errors() == []


@pytest.mark.browser
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keeps": False}, "This run kept no predictions"),
        ({"without_absent": True}, "No test image is of a class that is absent"),
        (
            {"partition": ClassPartition(4, range(4), []), "without_absent": True},
            "No test image is of a class",
        ),
        ({"checkpoint": True}, "Nothing was trained epoch by epoch"),
        ({"epochs": epoch_rows(3, absent=False)}, "Validation images were of seen classes alone"),
    ],
)
def test_pages_with_less_say_what_is_missing(tmp_path, browser, fields, said):
    run = finished_run(tmp_path / "run", **{"partition": PARTITION, **fields})
    main = "checkpoint" if "checkpoint" in fields else "fine_tuned"
    shown_page = Page(browser, write_page(tmp_path / "page.html", [run], {}))
    assert said in shown_page.js("return document.body.innerText")
    if fields.get("keeps", True):
        shown_page.give("gamma-number", 1.0)
        expected = partition_accuracy(
            run.outputs().of(main, "test", "logits"),
            run.outputs().of(main, "test", "target"),
            run.partition,
            1.0,
        )
        assert shown_page.accuracies()["acc_seen"] == expected["acc_seen"]
    assert "NaN" not in shown_page.js("return document.body.innerText")
    assert shown_page.errors() == []


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_fits_its_screen_and_prints(tmp_path, browser, width, scheme):
    names = [f"a rather long name of a class, number {i}" for i in range(9)]
    runs = [
        finished_run(
            tmp_path / f"run{i}-with-a-long-name", PARTITION, seed=i, names=names, epochs=epoch_rows(4)
        )
        for i in range(2)
    ]
    screen(browser, width, scheme)
    shown_page = Page(browser, write_page(tmp_path / "page.html", runs, {"command": "x" * 200}))
    shown_page.give("gamma-number", 1.0)
    wide, inner = shown_page.js("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner == width
    background = shown_page.js("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) == (scheme == "dark")
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    assert shown_page.js("return document.querySelector('details').open")
    assert shown_page.errors() == []
    screen(browser, 1280)
