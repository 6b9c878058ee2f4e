"""Augmentations of batches are torchvision's, image by image, and draw what each image alone would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ftc.data import Preprocessing, batch_transforms
from ftc.data.randomness import Draws

AUGMENTATION = [
    v2.RandomAffine(15, (0.15, 0.1), (0.75, 1.25), (-15, 15, -5, 5)),
    v2.RandomHorizontalFlip(),
    v2.ColorJitter(0.3, 0.3, 0.3, 0.3),
    v2.RandomGrayscale(0.1),
]
CONFIG = {
    "input_size": (3, 12, 12),
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}


def draws(size: int, seed: int = 0) -> Draws:
    return Draws(seed, range(size), 0)


def batched(*transforms):
    return [batch_transforms.batched(transform) for transform in transforms]


def amounts(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("brightness", (0.5, 1.0, 1.4)),
        ("contrast", (0.5, 1.0, 1.4)),
        ("saturation", (0.0, 1.0, 1.4)),
        ("hue", (-0.5, 0.0, 0.3)),
    ],
)
def test_colours_are_torchvisions(name, values, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, channels, 9, 11, generator=generator)
    # Grey, saturated and tied pixels.
    images[:, :, 0] = 0.5
    images[:, :, 1] = torch.randint(0, 2, (3, channels, 11), generator=generator).float()
    ours = getattr(batch_transforms, f"adjust_{name}")(255 * images, amounts(*values)) / 255
    theirs = [getattr(F, f"adjust_{name}")(image, value) for image, value in zip(images, values, strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=1e-5, rtol=0)


ANGLES = st.floats(-40, 40)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(ANGLES, st.integers(-4, 4), st.integers(-4, 4), st.floats(0.6, 1.6), ANGLES, ANGLES),
        min_size=1,
        max_size=4,
    ),
    st.integers(5, 12),
    st.integers(5, 12),
)
def test_affine_is_torchvisions(parameters, height, width):
    images = torch.rand(len(parameters), 3, height, width, generator=torch.Generator().manual_seed(1))
    angle, x, y, scale, shear_x, shear_y = torch.tensor(parameters, dtype=torch.float64).T.float()
    ours = batch_transforms.affine(images, angle, (x, y), scale, (shear_x, shear_y))
    for image, mine, (turn, right, down, factor, *shear) in zip(images, ours, parameters, strict=True):
        theirs = F.affine(image, turn, [right, down], factor, shear)
        # Where a pixel comes from halfway between two others, rounding decides.
        assert (mine != theirs).any(0).float().mean() < 0.15


def test_affine_moves_the_right_way():
    image = torch.zeros(1, 1, 5, 7)
    image[0, 0, 2, 3] = 1
    still = torch.zeros(1)
    moved = batch_transforms.affine(image, still, (still + 2, still - 1), still + 1, (still, still))
    assert moved.nonzero().tolist() == [[0, 0, 1, 5]]
    turned = batch_transforms.affine(moved, still + 90, (still, still), still + 1, (still, still))
    assert turned.nonzero().tolist() == [[0, 0, 4, 4]]


def test_grey_and_flip_are_torchvisions():
    images = torch.rand(4, 3, 5, 6)
    (grey, flip) = batched(v2.RandomGrayscale(1.0), v2.RandomHorizontalFlip(1.0))
    torch.testing.assert_close(grey(images.clone(), draws(4)), F.rgb_to_grayscale(images, 3))
    assert torch.equal(flip(images, draws(4)), images.flip(-1))
    for never in batched(v2.RandomGrayscale(0.0), v2.RandomHorizontalFlip(0.0)):
        assert torch.equal(never(images.clone(), draws(4)), images)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomAffine(10, interpolation=v2.InterpolationMode.BILINEAR),
        transforms.RandomAffine(10, fill=3),
        v2.RandomAffine(10, center=(0, 0)),
        v2.RandomPerspective(),
        lambda image: image,
    ],
)
def test_what_batches_cannot_do_is_left_to_images(transform):
    assert batch_transforms.batched(transform) is None


@pytest.mark.parametrize("module", [v2, transforms])
def test_affine_draws_what_torchvision_would(module):
    torch.manual_seed(0)
    (step,) = batched(module.RandomAffine(30, (0.1, 0.3), (0.5, 2.0), 20))
    image = torch.zeros(1, 1, 31, 31)
    image[..., 14:17, 14:17] = 255
    moved = step(image.expand(500, -1, -1, -1), draws(500))
    theirs = torch.stack([module.RandomAffine(30, (0.1, 0.3), (0.5, 2.0), 20)(image[0]) for _ in range(500)])
    for mine, other in ((moved, theirs), (moved.sum(-1), theirs.sum(-1)), (moved.sum(-2), theirs.sum(-2))):
        spread, expected = (x.float().flatten(1).std(1).mean() for x in (mine, other))
        assert spread == pytest.approx(float(expected), rel=0.1)
    assert moved.mean() == pytest.approx(float(theirs.mean()), rel=0.1)


def test_every_image_of_a_batch_draws_its_own():
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8).expand(64, -1, -1, -1)
    out = batch_transforms.apply(batched(*AUGMENTATION[1:]), images, draws(64))
    assert out.dtype == torch.uint8
    assert len(out.flatten(1).unique(dim=0)) == 64
    is_grey = (out == out[:, :1]).flatten(1).all(1)
    assert 1 <= is_grey.sum() <= 15
    flipped = batch_transforms.apply([batch_transforms.HorizontalFlip(0.5)], images, draws(64))
    assert 20 <= (flipped == images.flip(-1)).flatten(1).all(1).sum() <= 44


def test_jitter_draws_from_the_ranges():
    images = torch.full((1000, 3, 1, 1), 100.0)
    jitter = batch_transforms.ColorJitter((0.7, 1.3), None, None, None)
    factors = jitter(images, draws(1000))[:, 0, 0, 0] / 100
    assert factors.min() >= 0.7 - 1e-6
    assert factors.max() <= 1.3 + 1e-6
    assert factors.mean() == pytest.approx(1, abs=0.02)
    assert factors.std() == pytest.approx(0.6 / 12**0.5, abs=0.01)


def photographs(count: int, size: int) -> list[Image.Image]:
    """Images of a few sizes around ``size``."""
    generator = np.random.default_rng(0)
    shapes = size + generator.integers(0, 3, (count, 2))
    return [Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.mark.parametrize(
    ("augmentation", "size"),
    [
        (AUGMENTATION, 12),
        # Larger than a core's cache: images are changed a few at a time.
        (AUGMENTATION[1:], 300),
        ([v2.RandomPerspective(p=1.0), *AUGMENTATION, lambda image: image.rotate(90), v2.Resize(9)], 14),
        ([v2.RandomResizedCrop(12), v2.ColorJitter(0.5, 0.5, 0.5), v2.RandomVerticalFlip()], 14),
        ([], 14),
    ],
    ids=["batches", "large", "mixed", "tensors", "none"],
)
def test_an_image_does_not_depend_on_its_batch(augmentation, size):
    config = {**CONFIG, "input_size": (3, size, size)}
    preprocessing = Preprocessing(config, augmentation)
    images, positions = photographs(16, size), torch.arange(100, 116)
    whole = preprocessing.augmented(images, Draws(5, positions.tolist(), 100))
    assert (whole.shape, whole.dtype) == ((16, 3, size, size), torch.uint8)
    if augmentation:
        assert len(whole.flatten(1).unique(dim=0)) == 16
    for rows in ([3], [0, 15, 7], list(range(1, 16, 2))):
        some = preprocessing.augmented([images[row] for row in rows], Draws(5, positions[rows].tolist(), 100))
        assert torch.equal(some, whole[rows])


def test_draws_are_uniform_and_independent():
    whole = Draws(3, range(20_000), 0)
    first, second = whole.uniform(0, 1), whole.uniform(-1, 3)
    other_stage, other_seed = whole.at(1).uniform(0, 1), Draws(4, range(20_000), 0).uniform(0, 1)
    assert first.dtype == torch.float32
    assert torch.equal(whole.of([7, 9_999]).uniform(0, 1), first[[7, 9_999]])
    assert first.min() >= 0 and first.max() < 1
    assert second.min() >= -1 and second.max() < 3
    for numbers in (first, (second + 1) / 4, other_stage, other_seed):
        counts = torch.histc(numbers, 20, 0, 1)
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 45  # χ² of 19 degrees: one in a thousand
    table = torch.stack([first, second, other_stage, other_seed, first.roll(1)])
    off_diagonal = torch.corrcoef(table) - torch.eye(5)
    assert off_diagonal.abs().max() < 0.03
    orders = {tuple(Draws(3, [p], p).order(4)) for p in range(200)}
    assert len(orders) == 24
