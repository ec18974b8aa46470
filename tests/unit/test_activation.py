"""The parts of activation that need no device."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import deltaE_ciede2000
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests import images_zoo as zoo
from tests.photographs import pixels
from workers.activation.colour_difference import ciede2000, visible_difference
from workers.activation.compose import compose, prepare
from workers.activation.jnd import jnd_map
from workers.activation.quality import luminance_psnr_db, quality, ssim
from workers.activation.scale import round_trip_matrix
from workers.images import decode, encode
from workers.images.scaling import columns_scaled
from workers.images.strips import strips
from workers.images.tensors import luminance, to_input

SIZE = 112


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """By torch: (C, h, w) → (C, height, width), which our own scaling is to give."""
    return F.interpolate(image[None], (height, width), mode="bilinear", align_corners=False, antialias=True)[0]


def test_the_visibility_of_a_flat_grey_is_that_of_its_luminance() -> None:
    assert jnd_map(np.full((20, 20), 127, np.float32)) == pytest.approx(3 / 255, abs=1e-6)


def test_changes_hide_in_the_dark_in_the_bright_and_beside_edges() -> None:
    black, grey, white = (jnd_map(np.full((9, 9), level, np.float32))[4, 4] for level in (3, 127, 252))
    edge = np.full((9, 9), 100, np.float32)
    edge[:, 5:] = 154
    assert black > grey
    assert white > grey
    assert jnd_map(edge)[4, 4] > 2 * grey


@pytest.mark.parametrize("level", [0, 255])
def test_a_clipped_background_stays_as_it_is(level: int) -> None:
    picture = np.full((400, 300, 3), level, np.uint8)
    picture[100:300, 100:200] = pixels("coffee.png")[100:300, 100:200]
    prepared = prepare(picture, SIZE, 3.0)
    changed = compose(picture, prepared, torch.ones(3, SIZE, SIZE) * (1 if level == 0 else -1)) != picture
    near = 2  # pixels from the product that see it
    assert changed[100:300, 100:200].any(axis=2).mean() > 0.9
    changed[100 - near : 300 + near, 100 - near : 200 + near] = False
    assert not changed.any()


def test_enlarging_and_shrinking_is_what_the_matrix_says() -> None:
    change = torch.rand(1, SIZE, SIZE)
    seen = resize(resize(change, 300, 451), SIZE, SIZE)
    predicted = round_trip_matrix(SIZE, 300) @ change[0] @ round_trip_matrix(SIZE, 451).mT
    assert torch.allclose(seen[0], predicted, atol=1e-5)


@pytest.mark.parametrize("name", ["astronaut.png", "rocket.jpg", "chelsea.png"])
def test_the_extractor_sees_of_a_composed_image_what_the_optimiser_foresaw(name: str) -> None:
    image = pixels(name)
    prepared = prepare(image, SIZE, alpha=3.0)
    change = torch.tanh(torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    seen = prepare(compose(image, prepared, change), SIZE, alpha=3.0).image
    masks = torch.tensor(prepared.weights)[:, None, None] * prepared.mask
    foreseen = prepared.image + masks * (prepared.rows @ change @ prepared.columns.mT)
    wanted = (foreseen.clamp(0, 1) - prepared.image).norm()
    assert (seen - foreseen.clamp(0, 1)).norm() < 0.35 * wanted


@pytest.mark.parametrize(
    ("source", "target"),
    [(300, 112), (4000, 112), (113, 112), (112, 112), (50, 112), (112, 777), (60_000, 112), (112, 60_000)],
)
def test_rows_are_scaled_as_by_torch(source: int, target: int) -> None:
    columns = torch.rand(1, source, 5)
    rows = columns[0].T[..., np.newaxis].contiguous().numpy()  # the kernel scales the other side
    scaled = torch.from_numpy(columns_scaled(rows, target))[..., 0].T[np.newaxis]
    assert torch.allclose(scaled, resize(columns, target, 5), atol=1e-5)


def test_no_change_gives_the_image_back() -> None:
    image = pixels("coffee.png")
    assert (compose(image, prepare(image, SIZE, 3.0), torch.zeros(3, SIZE, SIZE)) == image).all()


def test_an_image_of_many_strips_gives_what_one_of_a_single_strip_would() -> None:
    image = np.tile(pixels("coffee.png"), (2, 2, 1))[:779, :1130]
    assert len(list(strips(779, 1130))) > 3
    whole = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    assert torch.allclose(to_input(image, SIZE), resize(whole / 255, SIZE, SIZE), atol=1e-5)
    prepared = prepare(image, SIZE, 3.0)
    visibility = jnd_map(luminance(image))
    assert prepared.visibility == pytest.approx(visibility, abs=1e-6)
    change = torch.tanh(torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    weights = 255 * torch.tensor(prepared.weights)[:, None, None]
    expected = (whole + resize(change, 779, 1130) * weights * torch.from_numpy(visibility)).round().clamp(0, 255)
    composed = torch.from_numpy(compose(image, prepared, change).transpose(2, 0, 1).astype(np.float32))
    assert (composed - expected).abs().max() <= 1
    assert (composed != expected).float().mean() < 1e-3  # rounding at a half


@pytest.mark.parametrize("shape", [(400, 600, 3), (400, 600), (400, 600, 4)])
def test_bands_of_a_picture_are_changed_as_in_the_whole_of_it(shape: tuple[int, ...]) -> None:
    image = pixels("coffee.png")[:400, :600]
    prepared = prepare(image, SIZE, 3.0)
    samples = np.resize(image, shape)
    change = torch.tanh(torch.randn(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))
    bands = [slice(32, 48), slice(96, 112), slice(390, 400)]
    chosen = np.concatenate([np.arange(band.start, band.stop) for band in bands])
    some, whole = compose(samples, prepared, change, bands=bands).astype(int), compose(samples, prepared, change)
    assert some.shape == (42, *shape[1:])
    assert np.abs(some - whole[chosen]).max() <= 1
    assert (some != whole[chosen]).mean() < 1e-3  # rounding at a half


def test_the_visibility_is_that_of_the_published_formula_with_seven_levels_in_the_dark() -> None:
    image = torch.from_numpy(pixels("chelsea.png").transpose(2, 0, 1).astype(np.float32))
    levels = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)[None, None]
    near = torch.tensor([[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 0, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1.0]]) / 32
    background = F.conv2d(F.pad(levels, (2,) * 4, mode="replicate"), near[None, None])
    dark, bright = 17 * (1 - (background / 127).sqrt()) + 3, 3 / 128 * (background - 127) + 3
    adaptation = torch.where(background < 127, dark.clamp(max=7), bright)
    sobel = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1.0]])
    around = F.pad(levels, (1,) * 4, mode="replicate")
    contrast2 = sum(F.conv2d(around, s[None, None]).square() for s in (sobel, sobel.T))
    masking = 0.117 * 16 * contrast2**1.2 / (contrast2 + 26**2)
    expected = (adaptation + masking - 0.3 * torch.minimum(adaptation, masking)) / 255
    assert jnd_map(luminance(pixels("chelsea.png"))) == pytest.approx(expected[0, 0].numpy(), abs=1e-5)


def test_the_change_stays_within_the_visibility_of_each_pixel() -> None:
    image = pixels("astronaut.png")
    prepared = prepare(image, SIZE, 3.0)
    composed = compose(image, prepared, torch.ones(3, SIZE, SIZE)).astype(int)
    # Blue may change most: 3 * 0.072 / 0.114 * 0.225 times the threshold.
    bound = prepared.visibility * 255 * 3 * 0.072 / 0.114 * 0.225 + 0.5
    assert (np.abs(composed - image)[..., 2] <= bound + 1e-3).all()


def test_under_an_linf_bound_no_value_changes_by_more_than_alpha() -> None:
    image = pixels("astronaut.png")
    prepared = prepare(image, SIZE, 4.0, "linf")
    composed = compose(image, prepared, torch.ones(3, SIZE, SIZE)).astype(int)
    assert set(np.unique(composed - image)) <= {0, 1, 2, 3, 4}  # less only where white is near
    assert np.median(composed - image) == 4


def test_a_grey_picture_s_change_is_one_of_luminance_alone() -> None:
    grey = pixels("chelsea.png")[..., 1]
    rgb = np.repeat(grey[..., np.newaxis], 3, axis=2)
    prepared = prepare(rgb, SIZE, 6.0, grey=True)
    change = torch.rand(1, SIZE, SIZE).expand(3, SIZE, SIZE)
    assert len(set(prepared.weights)) == 1
    assert (compose(rgb, prepared, change) == compose(grey, prepared, change)[..., np.newaxis]).all()


def test_16_bits_change_as_8_bits_do_and_finer() -> None:
    image = pixels("chelsea.png")
    prepared = prepare(image, SIZE, 6.0)
    change = torch.rand(3, SIZE, SIZE)
    deep = compose(image.astype(np.uint16) * np.uint16(257), prepared, change)
    assert np.abs(deep / 257 - compose(image, prepared, change)).max() <= 0.51
    assert len(np.unique(deep % 257)) > 100


def test_inks_change_so_that_the_colours_they_make_do() -> None:
    image = pixels("chelsea.png")
    inks = np.dstack([255 - image, np.full(image.shape[:2], 100, np.uint8)])
    shown = np.asarray(Image.frombuffer("CMYK", inks.shape[1::-1], inks.tobytes()).convert("RGB"))
    prepared = prepare(shown, SIZE, 6.0)
    changed = compose(inks, prepared, torch.ones(3, SIZE, SIZE))
    assert (changed[..., 3] == 100).all()
    seen = np.asarray(Image.frombuffer("CMYK", inks.shape[1::-1], changed.tobytes()).convert("RGB"))
    wanted = compose(shown, prepared, torch.ones(3, SIZE, SIZE)).astype(int)
    inside = (changed[..., :3] > 0) & (changed[..., :3] < 255)
    assert np.abs(seen.astype(int) - wanted)[inside].max() <= 2


def test_the_dark_may_change_less_than_texture_and_not_more_than_seven_levels() -> None:
    assert jnd_map(np.full((20, 20), 2, np.float32)).max() <= 7 / 255 + 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_of_samples_in_linear_light_looks_like_the_same_change_in_srgb(channels: int) -> None:
    ramp = np.tile(np.linspace(4_000, 60_000, 160).astype(">u2"), (120, 1))
    samples = np.repeat(ramp[..., np.newaxis], channels, axis=2)
    linear = zoo.chunk(b"gAMA", struct.pack(">I", 100_000))
    data = zoo.with_png_chunks(zoo.png((160, 120), 16, {1: 0, 3: 2}[channels], zoo.rows_of(samples)), linear)
    original = decode(data, zoo.LIMITS)
    prepared = prepare(original.pixels, SIZE, 6.0, grey=True)
    change = torch.ones(3, SIZE, SIZE)
    changed = compose(original.samples, prepared, change, tone=original.tone)
    seen = decode(encode(changed, original).data, zoo.LIMITS).pixels.astype(int)
    wanted = compose(original.pixels, prepared, change).astype(int)
    assert np.abs(wanted - original.pixels).max() >= 3
    assert np.abs(seen - wanted).max() <= 1


def test_half_the_strength_is_half_the_change() -> None:
    image = pixels("chelsea.png")
    prepared = prepare(image, SIZE, 6.0)
    full, half = (compose(image, prepared, torch.ones(3, SIZE, SIZE), s).astype(int) - image for s in (1.0, 0.5))
    assert np.abs(full - 2 * half).max() <= 2


def test_quality_agrees_with_scikit_image() -> None:
    image = pixels("chelsea.png")
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    measured = quality(image, noisy)
    weights = np.array([0.299, 0.587, 0.114])
    theirs = structural_similarity(
        image @ weights, noisy @ weights, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert measured.psnr_db == pytest.approx(peak_signal_noise_ratio(image, noisy), abs=1e-3)
    assert measured.ssim == pytest.approx(theirs, abs=2e-3)
    assert measured.delta_e == pytest.approx(visible_difference(image, noisy), abs=1e-3)
    theirs_y = peak_signal_noise_ratio(image @ weights, noisy @ weights, data_range=255)
    assert luminance_psnr_db(image, noisy) == pytest.approx(theirs_y, abs=1e-3)
    assert measured.linf == np.abs(image.astype(int) - noisy).max()


def test_a_large_image_s_similarity_is_that_of_its_shrunk_version() -> None:
    image = np.repeat(np.repeat(pixels("chelsea.png"), 3, axis=0), 3, axis=1)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 9, image.shape), 0, 255).astype(np.uint8)
    factor = round(image.shape[0] / 256)
    shrunk = (np.asarray(Image.fromarray(i[: i.shape[0] // factor * factor]).reduce(factor)) for i in (image, noisy))
    assert ssim(image, noisy) == pytest.approx(ssim(*(s[:, : s.shape[1]] for s in shrunk)), abs=5e-3)


def test_the_difference_of_colours_agrees_with_scikit_image() -> None:
    random = np.random.default_rng(0)
    one, other = (random.uniform((0, -90, -90), (100, 90, 90), (500, 3)) for _ in range(2))
    near = one + random.normal(0, 2, one.shape)
    for second in (other, near, one * (1, 0, 0)):
        ours = ciede2000(np.ascontiguousarray(one.T, np.float32), np.ascontiguousarray(second.T, np.float32))
        assert ours == pytest.approx(deltaE_ciede2000(one, second), abs=1e-4)


def test_a_tint_of_a_dark_sky_is_told_from_noise_of_the_same_energy() -> None:
    sky = np.full((1200, 1600, 3), 12, np.uint8)
    patch, noise = sky.copy(), sky.copy()
    patch[:600, :, 2] += 6
    noise[..., 2] += np.random.default_rng(0).choice([0, 6], (1200, 1600)).astype(np.uint8)
    assert quality(sky, patch).psnr_db == pytest.approx(quality(sky, noise).psnr_db, abs=0.1)
    assert visible_difference(sky, patch) > 1.5 * visible_difference(sky, noise)


def test_equal_images_have_no_psnr_and_full_similarity() -> None:
    image = pixels("coffee.png")
    assert quality(image, image).psnr_db is None
    assert luminance_psnr_db(image, image) == float("inf")
    assert ssim(image, image) == pytest.approx(1)
