"""Every block of the README and the docs: commands are composed and checked, code is compiled or run.

`tests/docs/test_walk.py`, which takes minutes, executes the blocks as they stand.
"""

from __future__ import annotations

import gc
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hydra.errors import HydraException
from lightning.pytorch import LightningModule
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import DataLoader, TensorDataset

from ftc.errors import InputError
from tests.docs.blocks import BLOCKS, PAGES, ROOT, Block, the_block
from tests.docs.checks import check_words, lay_out_arguments, lay_out_names
from tests.docs.rules import is_known, needs_files
from tests.docs.shell import Command, commands_of, of_ftc
from tests.docs.stand_ins import PLACES

EXECUTED = ("bash", "python", "yaml")
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]
# What a line that somebody may want to run begins with.
_RUN = re.compile(r"^(\$ |python3? |ftc[ -]|pip |make |torchrun )", re.MULTILINE)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """The values of sweeps' lists that were checked."""
    return set()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all names that a configuration's checks ask for, and the files that blocks are."""
    home = tmp_path_factory.mktemp("names")
    lay_out_names(home)
    lay_out_arguments(home, list(PLACES))
    for block in BLOCKS:
        if block.file is not None:
            path = home / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    return home


@pytest.fixture
def at_names(names: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(names)
    monkeypatch.syspath_prepend(str(names))
    # A collection looks at every object of torch; composing makes many, and few that it would find.
    gc.disable()
    yield names
    gc.enable()


def faults(blocks: list[Block], home: Path, seen: set[str]) -> list[str]:
    """What is wrong with the commands of blocks, a line each with its place."""
    found = []
    for block in blocks:
        try:
            commands = commands_of(block)
        except ValueError as error:
            found.append(str(error))
            continue
        for command in commands:
            if not is_known(command.words):
                found.append(f"{command}: tests/docs/rules.py does not say what to do with it")
            call = of_ftc(command.words)
            if call is not None:
                found += _faults_of(command, *call, home, seen)
    return found


def _faults_of(command: Command, name: str, arguments: list[str], home: Path, seen: set[str]) -> list[str]:
    lay_out_arguments(home, arguments)
    try:
        check_words(name, arguments, 2 if "torchrun" in command.words else 1, seen)
    except (InputError, HydraException, OmegaConfBaseException) as error:
        return [f"{command}: {error}"]
    return []


@pytest.mark.parametrize("page", IDS)
def test_every_command_of_a_page_is_right(page: str, at_names: Path, seen: set[str]):
    bash = [block for block in BLOCKS if block.page == page and block.language == "bash"]
    assert not faults(bash, at_names, seen)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("python -m ftc.train trainer.max_epoch=3", "max_epoch"),
        ("OMP_NUM_THREADS=1 python -m ftc.train \\\n  method=fine", "method=fine"),
        ("for m in full fine; do ftc train method=$m; done", "method=fine"),
        ("python -m ftc.train -m method=full,fine seed=0,1", "fine"),
        ("torchrun --nproc-per-node=2 -m ftc.train seed=-1", "seed"),
        ("python -m ftc.train -m trainer=ddp_cpu seed=0,1", "whole sweep"),
        ("python -m ftc.train seed=0,1", "-m"),
        ("ftc report outputs/<run> metric=[ausuc]", "metric"),
        ("python -m ftc.prepare office_home --into data", "--into"),
        ("python -m ftc.train seed=$SEED", "SEED"),
        ("python -m ftc.report <results>", "<results>"),
        ("conda install ftc", "rules.py"),
    ],
)
def test_what_is_wrong_is_found_with_its_place(line: str, fault: str, at_names: Path, capsys):
    (found,) = faults([Block("a.md", 7, "bash", f"# before\n\n{line}\n")], at_names, set())
    place = "a.md:7: " if "SEED" in line or "<results>" in line else "a.md:10: "
    assert found.startswith(place)
    assert fault in found + capsys.readouterr().err


def test_no_block_is_passed_over():
    for block in BLOCKS:
        assert block.is_shown or block.language in EXECUTED, f"{block.place}: {block.language}"
        if block.is_shown:
            assert not _RUN.search(block.text), f"{block.place}: call it bash"
        if block.language == "yaml":
            assert isinstance(yaml.safe_load(block.text), dict), block.place
            assert block.file is not None, f"{block.place}: name the file in a comment"
        if block.language == "python":
            compile(block.text, block.place, "exec")


class TwoLayers(LightningModule):
    """Knows nothing of ftc."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Linear(5, 4)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return {"logits": self.layers(batch[0]), "target": batch[1]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def given() -> dict[str, object]:
    """What the pages' code takes for granted."""
    features = torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
    seen = DataLoader(TensorDataset(features[:40], torch.arange(40) % 2), 8)
    val = DataLoader(TensorDataset(features[40:], torch.arange(40) % 4), 8)
    return {"module": TwoLayers(), "train_loader": seen, "loaders": [seen, val]}


ALONE = [block for block in BLOCKS if block.language == "python" and not needs_files(block)]


@pytest.mark.parametrize("block", ALONE, ids=[block.place for block in ALONE])
def test_code_that_needs_no_files_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names = given()
    exec(compile(block.text, block.place, "exec"), names)
    if block == the_block("python", "CalibrationCallback("):
        assert [row["epoch"] for row in names["callback"].history] == [-1, 0, 1, 2]


@pytest.mark.parametrize("page", IDS)
def test_every_make_target_and_link_of_a_page_is_there(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in sorted(set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, flags=re.MULTILINE))):
        subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(file), f"{page}: {link}: no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
