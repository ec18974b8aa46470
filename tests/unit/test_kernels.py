"""Each kernel against its formula in double precision, on small random images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from workers.activation.colour_difference import ciede2000
from workers.activation.compose import Attenuation, PreparedImage, compose, prepare
from workers.activation.jnd import jnd_map
from workers.activation.quality import kept_share, psnr_db, quality, ssim
from workers.images.scaling import Shrinking
from workers.images.tensors import luminance, to_input

SIZE = 16
Array = np.ndarray

sides = st.integers(1, 45)
seeds = st.integers(0, 2**32 - 1)


def noise(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.integers(0, 256, shape, np.uint8)


def flat(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.full(shape, random.integers(0, 256), np.uint8)


def clipped(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Black and white in large patches."""
    patches = random.integers(0, 2, (shape[0] // 6 + 1, shape[1] // 6 + 1, *shape[2:]), np.uint8) * np.uint8(255)
    return np.ascontiguousarray(np.repeat(np.repeat(patches, 6, axis=0), 6, axis=1)[: shape[0], : shape[1]])


looks = st.sampled_from([noise, flat, clipped])
Look = Callable[[np.random.Generator, tuple[int, ...]], Array]


def scaled(planes: Array, height: int, width: int) -> Array:
    """(C, h, w) → (C, height, width), bilinear with antialiasing. Torch's own gives results of one column in which all
    rows are alike."""
    return np.asarray(triangles(planes.shape[1], height) @ planes @ triangles(planes.shape[2], width).T)


def triangles(source: int, target: int) -> Array:
    """(target, source) what each value of the source counts for each of the result."""
    centres = (np.arange(target)[:, np.newaxis] + 0.5) * source / target
    distances = np.abs(np.arange(source) + 0.5 - centres) / max(source / target, 1)
    weights = (1 - distances).clip(0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@given(looks, sides, sides, seeds)
@settings(max_examples=60, deadline=None)
def test_an_image_is_shrunk_and_enlarged_by_triangles(look: Look, height: int, width: int, seed: int) -> None:
    image = look(np.random.default_rng(seed), (height, width, 3))
    expected = scaled(image.transpose(2, 0, 1) / 255, SIZE, SIZE)
    assert to_input(image, SIZE).numpy() == pytest.approx(expected, abs=1e-6)


@given(looks, sides, sides, seeds)
@settings(max_examples=60, deadline=None)
def test_luminance_is_the_weighted_sum_of_channels(look: Look, height: int, width: int, seed: int) -> None:
    image = look(np.random.default_rng(seed), (height, width, 3))
    assert luminance(image) == pytest.approx(image @ [0.299, 0.587, 0.114], abs=1e-4)


@given(looks, sides, sides, seeds)
@settings(max_examples=60, deadline=None)
def test_visibility_is_that_of_the_formula(look: Look, height: int, width: int, seed: int) -> None:
    levels = luminance(look(np.random.default_rng(seed), (height, width, 3)))
    assert jnd_map(levels) == pytest.approx(visibility(levels.astype(np.float64)), abs=2e-6)


def visibility(levels: Array) -> Array:
    """The model's thresholds of (H, W), with seven levels at most in the dark, and none where all is clipped."""
    around = np.pad(levels, 2, mode="edge")
    near = {(y, x): around[y : y + len(levels), x : x + levels.shape[1]] for y in range(5) for x in range(5)}
    inner = {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}
    background = sum(((2 if at in inner else 1) * near[at] for at in near if at != (2, 2)), np.zeros(levels.shape)) / 32
    dark = np.minimum(20 - 17 * np.sqrt(background / 127), 7)
    adaptation = np.where(background < 127, dark, 3 / 128 * (background - 127) + 3)
    adaptation[(background < 0.01) | (background > 254.99)] = 0
    to_right = sum(weight * (near[y, 3] - near[y, 1]) for y, weight in ((1, 1), (2, 2), (3, 1)))
    to_bottom = sum(weight * (near[3, x] - near[1, x]) for x, weight in ((1, 1), (2, 2), (3, 1)))
    contrast2 = np.asarray(to_right**2 + to_bottom**2)
    masking = 0.117 * 16 * contrast2**1.2 / (contrast2 + 26**2)
    return (adaptation + masking - 0.3 * np.minimum(adaptation, masking)) / 255


@given(looks, sides, sides, seeds, st.sampled_from([1, 3, 4]), st.sampled_from([8, 16]), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_change_is_enlarged_attenuated_added_and_rounded(
    look: Look, height: int, width: int, seed: int, channels: int, bits: int, by_pixel: bool, in_tone: bool
) -> None:
    random = np.random.default_rng(seed)
    picture = look(random, (height, width, 3))
    samples = look(random, (height, width, 4))[..., :channels].astype(np.uint8 if bits == 8 else np.uint16)
    samples = samples * np.uint16(257) if bits == 16 else samples
    tone = random.uniform(0.3, 3, 256).astype(np.float32) if in_tone and channels != 4 else None
    prepared = prepare(picture, SIZE, 6.0, "jnd" if by_pixel else "linf")
    change = random.uniform(-1, 1, (3, SIZE, SIZE)).astype(np.float32)
    composed = compose(samples[..., 0] if channels == 1 else samples, prepared, torch.from_numpy(change), 0.8, tone)
    exact = composed_exactly(samples, prepared, change, 0.8, tone)
    assert composed.dtype == samples.dtype
    # To the nearest, and either way where a half is as near as single precision tells.
    assert np.abs(composed.reshape(samples.shape) - exact).max() <= 0.5 + (1e-3 if bits == 8 else 0.05)


def composed_exactly(
    samples: Array, prepared: PreparedImage, change: Array, strength: float, tone: Array | None
) -> Array:
    """In levels, before rounding: (H, W, C)."""
    height, width, channels = samples.shape
    most = np.iinfo(samples.dtype).max
    enlarged = scaled(change[: min(channels, 3)], height, width).transpose(1, 2, 0)
    moved = enlarged * np.array(prepared.weights)[: enlarged.shape[2]] * strength * most
    moved = moved * prepared.visibility[..., np.newaxis]
    if channels == 4:  # each colour is the white that its ink and black leave
        left = np.maximum(most - samples[..., 3:].astype(np.float64), most / 4)
        moved = np.dstack([-moved * most / left, np.zeros_like(left)])
    elif tone is not None:
        moved = moved * tone[samples // (most // 255)]
    return np.asarray((samples + moved).clip(0, most))


@given(sides, sides, seeds)
@settings(max_examples=30, deadline=None)
def test_samples_of_16_bits_may_lie_in_the_order_of_their_file(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    samples = random.integers(0, 65_536, (height, width, 3), np.uint16)
    prepared = prepare(noise(random, samples.shape), SIZE, 6.0)
    change = torch.from_numpy(random.uniform(-1, 1, (3, SIZE, SIZE)).astype(np.float32))
    assert (compose(samples.astype(">u2"), prepared, change) == compose(samples, prepared, change)).all()


@given(looks, looks, sides, sides, seeds)
@settings(max_examples=60, deadline=None)
def test_errors_are_exact(one: Look, other: Look, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second = (look(random, (height, width, 3)) for look in (one, other))
    difference = second.astype(np.float64) - first
    assert quality(first, second).linf == np.abs(difference).max()
    if difference.any():
        assert psnr_db(first, second) == pytest.approx(10 * np.log10(255**2 / np.mean(difference**2)), abs=1e-9)


@given(looks, st.integers(11, 60), st.integers(11, 60), seeds, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_similarity_is_scikit_image_s(look: Look, height: int, width: int, seed: int, noise_levels: int) -> None:
    random = np.random.default_rng(seed)
    first = look(random, (height, width, 3))
    second = (first + random.normal(0, noise_levels, first.shape)).clip(0, 255).astype(np.uint8)
    theirs = structural_similarity(
        *(image @ [0.299, 0.587, 0.114] for image in (first, second)),
        data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(first, second) == pytest.approx(theirs, abs=1e-3)


@given(sides, sides, seeds, st.sampled_from([8, 16]))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_of_a_change_is_its_part_along_it(height: int, width: int, seed: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    kind = np.uint8 if bits == 8 else np.uint16
    original, meant, published = random.integers(0, 2**bits, (3, height, width), kind)
    change, left = meant.astype(np.float64) - original, published.astype(np.float64) - original
    expected = (change * left).sum() / (change**2).sum() if change.any() else 1
    assert kept_share(original, meant, published) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_images_that_do_not_fit_each_other_are_refused() -> None:
    image = noise(np.random.default_rng(0), (30, 20, 3))
    prepared, change = prepare(image, SIZE, 3.0), torch.zeros(3, SIZE, SIZE)
    with pytest.raises(ValueError, match="of one size"):
        quality(image, image[:-1])
    with pytest.raises(ValueError, match="one shape"):
        kept_share(image, image, image[:, :-1])
    with pytest.raises(ValueError, match="fit"):
        compose(image[:-1], prepared, change)
    with pytest.raises(ValueError, match="fit"):
        compose(image, replace(prepared, visibility=prepared.visibility[:, :-1]), change)
    with pytest.raises(ValueError, match="fit"):
        compose(image, prepared, change, tone=np.ones(255, np.float32))


def test_what_stands_before_a_kernel_refuses_other_shapes() -> None:
    """A kernel would read or write beyond its arrays."""
    with pytest.raises(ValueError, match="expected"):
        Shrinking((4, 4, 3), 2).add(slice(0, 4), np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="expected"):
        ciede2000(np.zeros((3, 9), np.float32), np.zeros((3, 4), np.float32))
    for pixels in (np.zeros((8, 8, 1), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)):
        for attenuation in get_args(Attenuation):
            with pytest.raises(ValueError, match="expected"):
                prepare(pixels, 8, 3.0, attenuation)
