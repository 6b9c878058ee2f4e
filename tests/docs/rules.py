"""What a command of a page needs, and what is done where this machine or a test has not got it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.docs.blocks import ROOT, Block
from tests.docs.shell import of_ftc
from tests.docs.stand_ins import CLIP, PLACES, StandIns, quick

# Why a command is not run, by what it needs.
REASONS = {
    r"^pip |^python3? -m (pip|venv) ": "installs packages",
    r"--nnodes=[2-9]|trainer\.num_nodes=[2-9]": "needs two hosts",
    r"hydra/launcher=submitit_slurm": "needs SLURM",
    r"\bpush=": "needs an account of the hub",
    r"^wandb ": "needs an account of W&B",
    r"^(tensorboard|mlflow) ": "serves pages until it is stopped",
    r"^make (test|bench|lint|format|figures|clean)": "works on the repository itself",
    r" -m pytest ": "is this suite",
}
if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
    REASONS[r"hydra/launcher=ray|engine=ray"] = "needs Ray, which is not installed"
# Programs that are asked for, beside ftc's own; further ones are run as they are. Bash's own are not seen.
PYTHON, TRACKERS = ("python", "python3"), ("wandb", "tensorboard", "mlflow")
ASKED = (*PYTHON, *TRACKERS, "ftc", "pip", "npm", "git", "make", "torchrun")
SYSTEM = ("mkdir",)

# What a command of ftc's needs that a test has not got, what stands in for it, and how it is told so.
IN_PLACE = (
    (r"trainer=gpu\b", "the CPU for a GPU", ("trainer.accelerator=cpu",)),
    (r"trainer=(ddp|fsdp)\b", "two processes for GPUs", ("trainer.accelerator=cpu", "trainer.devices=2")),
    (r"compile=true", "no compilation, which takes minutes", ("compile=false",)),
    (r"hf-hub:", "a local model for one of the hub", ("model.name=local-dir:{model}",)),
    (
        r"resnet50|office_home|imagenet_r\b|imagenet_sketch|iwildcam",
        "a tiny network for ResNet-50 with ImageNet's weights",
        ("model.name=local-dir:{model_of_imagenet}",),
    ),
    (r"columns=imagenet-1k ", "photos of ImageNet's classes", ("data.root={photos_of_imagenet}",)),
    (r"root=photos .*columns=\S+\+ ", "photos of new classes", ("data.root={photos_of_new_classes}",)),
    (
        r"experiment=vtab",
        "a small CLIP with random weights",
        (f"model.name={CLIP}", "model.pretrained=null", "source.checkpoint={clip.pth}"),
    ),
    (
        r"experiment=emoji",
        "four classes for 57",
        ("data.num_classes=4", "data.num_seen=2", "data.num_absent=2"),
    ),
)
_NUMBER = re.compile(r"[-+\d.e]+")
# They start processes of their own by their command line.
FRESH = r"ddp|fsdp|hydra/launcher=|torchrun|engine=ray"


def reason(words: tuple[str, ...]) -> str | None:
    """Why a command is not run; None where it is."""
    line = " ".join(words) + " "
    return next((why for pattern, why in REASONS.items() if re.search(pattern, line)), None)


def is_known(words: tuple[str, ...]) -> bool:
    """Whether there is a rule for a command."""
    return of_ftc(words) is not None or reason(words) is not None or words[0] in (*SYSTEM, *ASKED)


def needs_files(block: Block) -> bool:
    """Whether the code of a block is a file or names one, and so is executed where its page makes these."""
    return block.file is not None or any(
        text in PLACES or re.search(r"\w/|\w\.\w+$", text) for text in block.texts()
    )


def shortened(name: str, arguments: list[str], things: StandIns, folder: Path) -> tuple[list[str], list[str]]:
    """The arguments of a quick run of a command of ftc's in a folder, and what stands in for what in it."""
    if name == "prepare":
        return _prepared(arguments, things)
    if name not in ("train", "evaluate") or {"--help", "--version", "-sc"} & set(arguments):
        return arguments, []
    said, more = [], []
    line = " ".join([*arguments, *_configured(arguments, folder), ""])
    for pattern, what, overrides in IN_PLACE:
        if re.search(pattern, line):
            said.append(what)
            more += [re.sub(r"\{(.+?)\}", lambda found: str(things[found[1]]), word) for word in overrides]
    if "sweep=optuna" in arguments:
        more.append("hydra.sweeper.n_trials=2")
    else:
        arguments = _cut([*arguments, *_swept(arguments)])
    more += [*quick(tuple(arguments)), f"cache_dir={things.home}/cache"]
    return [*arguments, *more], said


def _configured(arguments: list[str], folder: Path) -> list[str]:
    """The texts of a configuration of the page's own."""
    if "--config-dir" not in arguments:
        return []
    own = folder / arguments[arguments.index("--config-dir") + 1]
    return [file.read_text() for file in own.rglob("*.yaml")]


def _prepared(arguments: list[str], things: StandIns) -> tuple[list[str], list[str]]:
    if "--from" in arguments or not arguments or arguments[0].startswith("-"):
        return arguments, []
    return [*arguments, "--from", str(things[f"original/{arguments[0]}"])], ["a replica for the hub's copy"]


def _swept(arguments: list[str]) -> list[str]:
    """The lists of values of the sweep that the arguments name, but for those that they give themselves."""
    name = next((word.removeprefix("sweep=") for word in arguments if word.startswith("sweep=")), None)
    if name is None:
        return []
    given = {word.partition("=")[0] for word in arguments}
    params = OmegaConf.load(ROOT / "conf" / "sweep" / f"{name}.yaml").hydra.sweeper.params
    return [f"{key}={values}" for key, values in params.items() if key not in given]


def _cut(arguments: list[str]) -> list[str]:
    """Arguments of whose lists one has two values left, rather words than numbers, and all others one."""
    lists = {word: values for word in arguments if (values := _values(word))}
    longest = max(
        lists, key=lambda word: (not _NUMBER.fullmatch(lists[word][0]), len(lists[word])), default=""
    )
    return [
        f"{word.partition('=')[0]}={','.join(lists[word][: 2 if word == longest else 1])}"
        if word in lists
        else word
        for word in arguments
    ]


def _values(word: str) -> list[str]:
    """The values that a word of a multirun lists; none where it lists none."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        return []
    return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
