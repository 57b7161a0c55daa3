"""Generated images with an object that is camouflaged by its texture, for training and testing without a dataset.

Inside and outside of the object, every image has the same colors in the same proportions with the same
shading and noise; only the texture differs, by one of three cues:

- "orientation": the same pattern rotated by 58 to 122 degrees;
- "scale": the same pattern at least 1.8 times finer or coarser;
- "both": the pattern is rotated in the same way and is also finer or coarser.

The patterns are "stripes" (a bent grating), "grain" (noise with one orientation and one scale) and "spots"
(noise with one scale, for the scale cue only). Orientation and scale of the background vary from image to
image, so no fixed filter finds the object: it is the smaller, compact part that differs.

Training and validation textures are disjoint. Orientation, wavelength, contrast and hue are each divided into
bins; "train" draws from the even bins, "val" from the odd ones, and a margin of a fifth of a bin separates
neighbors. Mirroring an image or rotating it by 90 degrees keeps an orientation within its split. Only the
nominal values are disjoint: stripes bend and grain spreads around them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from camoxpert_cli import console
from camoxpert_cli.data.pairs import Pair
from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.data.writing import encoded
from camoxpert_cli.errors import DataError
from camoxpert_cli.regular_file import read_regular

Split = Literal["train", "val"]
Cue = Literal["orientation", "scale", "both"]
Pattern = Literal["stripes", "grain", "spots"]
Map = NDArray[np.float64]
ImageMaskPair = tuple[NDArray[np.uint8], NDArray[np.uint8]]

VERSION = 1
MANIFEST = "synthetic.json"
MIN_SIZE = 48
# Height and width in pixels, as in many COD10K images.
PHOTOGRAPH_SIZE = (737, 964)
_ENLARGED = 4

ORIENTATION_BINS = 16
ORIENTATION_STEP = 180 / ORIENTATION_BINS
WAVELENGTH_BINS = 9
SHORTEST_WAVELENGTH = 4.0
BINS_PER_OCTAVE = 6
CONTRAST_BINS = 6
LOWEST_CONTRAST = 0.25
CONTRAST_STEP = 0.03
HUE_BINS = 12
HUE_STEP = 360 / HUE_BINS


@dataclass(frozen=True)
class Texture:
    """A pattern, the direction across its stripes in degrees [0, 180) and its wavelength in pixels."""

    pattern: Pattern
    orientation: float
    wavelength: float


@dataclass(frozen=True)
class Recipe:
    """The parameters of an image; hue in degrees [0, 360), contrast as half the range of lightness."""

    cue: Cue
    background: Texture
    object: Texture
    hue: float
    contrast: float


def generate_image(seed: int, index: int, split: Split, size: int, *, with_object: bool = True) -> ImageMaskPair:
    """Generate image `index` of a split: image uint8 (size, size, 3) RGB, mask uint8 (size, size) of 0 or 255.

    A pure function of its arguments (up to rounding of the processor's arithmetic). `seed` and `index` are
    non-negative, `size` is in pixels, at least MIN_SIZE. The object covers 5 to 30 % of the image; without one, the
    background texture fills it, and the mask is empty.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size must be at least {MIN_SIZE} pixels, got {size}")
    rng = _generator(seed, index, split)
    recipe = _draw_recipe(rng, split)
    inside = _draw_object(rng, size) & with_object
    # Ranks give both sides the same flat histogram, regardless of the histograms of the two patterns.
    level = np.empty((size, size))
    level[inside] = _ranks(_render(rng, recipe.object, size)[inside])
    level[~inside] = _ranks(_render(rng, recipe.background, size)[~inside])
    colours = _palette(rng, recipe)
    image = np.stack([np.interp(level, [0, 0.5, 1], channel) for channel in colours.T], axis=-1)
    image *= _shading(rng, size)[..., None]
    image += rng.normal(0, 0.02, image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), inside.astype(np.uint8) * 255


def image_recipe(seed: int, index: int, split: Split) -> Recipe:
    """Return the recipe that `generate_image` uses for the same arguments."""
    return _draw_recipe(_generator(seed, index, split), split)


def write_dataset(folder: Path, *, seed: int, train: int, test: int, size: int) -> bool:
    """Write images of `size` pixels as PNG files; return False if they already existed.

    `train` and `test` are counts. The files are TrainDataset/{Imgs,GT}/train_00000.png ... from the "train"
    split, TestDataset/synthetic/{Imgs,GT}/test_00000.png ... from the "val" split, and a manifest. All of them appear
    atomically: they are written to a folder next to `folder`, which is then renamed. Raises DataError if `folder`
    contains anything other than exactly these files and hidden ones, or if the disk has too little space; nothing is
    changed then, because the folder may belong to somebody else or be in use.
    """
    wanted = {"version": VERSION, "seed": seed, "train": train, "test": test, "size": size}
    folder = folder.resolve()  # the target of a link
    parts: list[tuple[Path, str, Split, int]] = [
        (Path("TrainDataset"), "train", "train", train),
        (Path("TestDataset") / "synthetic", "test", "val", test),
    ]
    plan = [entry for part in parts for entry in _plan(*part)]
    names = {path for entry in plan for path in entry[2:]} | {Path(MANIFEST)}
    if _holds(folder, names, wanted):
        return False
    _require_room(folder, 4 * size**2 * len(plan), len(plan))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.tmp", dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        for index, split, image_path, mask_path in plan:
            image, mask = generate_image(seed, index, split, size)
            _write(new / image_path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            _write(new / mask_path, mask)
        (new / MANIFEST).write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        try:
            new.rename(folder)
        except OSError:
            if not _holds(folder, names, wanted):  # unless another process finished the same dataset first
                raise
            return False
    return True


def write_photographs(folder: Path, count: int) -> list[Pair]:
    """Write images that take as long to read as photos: JPEGs as large as those of COD10K, masks as PNG files.

    Patterns are rendered small and enlarged, with added sensor noise: about 180 kB each.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(index: int) -> Pair:
        image, mask = generate_image(0, index, "train", PHOTOGRAPH_SIZE[1] // _ENLARGED)
        pair = Pair(f"{index:03d}", folder / f"{index:03d}.jpg", folder / f"{index:03d}.png")
        large = cv2.resize(image, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
        large = large[: PHOTOGRAPH_SIZE[0]]
        noise = np.random.default_rng(index).normal(0, 4, large.shape)
        _write(pair.image, np.clip(large + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        _write(pair.mask, np.kron(mask, np.ones((_ENLARGED, _ENLARGED), np.uint8))[: PHOTOGRAPH_SIZE[0]])
        return pair

    return list(in_threads(write, range(count)))


def _plan(folder: Path, stem: str, split: Split, count: int) -> list[tuple[int, Split, Path, Path]]:
    """Index, split, image file and mask file of each image of one part of the dataset."""
    names = [f"{stem}_{index:05d}.png" for index in range(count)]
    return [(index, split, folder / "Imgs" / name, folder / "GT" / name) for index, name in enumerate(names)]


def _require_room(folder: Path, needed: int, count: int) -> None:
    """`needed` assumes uncompressed images and masks, because the noise in the images hardly compresses."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{count} generated images need up to {console.byte_size(needed)}, but the disk of {there} has only "
            f"{console.byte_size(free)} free",
            "generate fewer images, or choose another disk",
        )


def _holds(folder: Path, names: set[Path], wanted: dict[str, int]) -> bool:
    """Whether the folder contains exactly these files and the expected manifest; False if it is empty or missing.

    Raises DataError if it contains anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    # Browsing a folder may leave .DS_Store or .ipynb_checkpoints behind.
    files = {path for path in paths if not any(part.startswith(".") for part in path.parts)}
    if files == names and _read_json(folder / MANIFEST) == wanted:
        return True
    other = next(iter(sorted(files - names)), None)
    raise DataError(
        f"{folder} does not match the dataset to be generated there, {wanted['train']} + {wanted['test']} images of "
        f"{wanted['size']} pixels{'' if other is None else f': unexpected file {folder / other}'}",
        "choose another folder with --checkpoint-dir, or move this one away so that its images are generated again",
    )


def _read_json(path: Path) -> Any:
    """The content of a JSON file, or None if it is missing or damaged."""
    try:
        return json.loads(read_regular(path, 2**16))
    except (OSError, ValueError, RecursionError):
        return None


def _write(path: Path, pixels: NDArray[Any], options: Sequence[int] = ()) -> None:
    """Write in the format of the path's extension. Raises DataError if writing fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(path.suffix, pixels, options))
    except OSError as error:
        raise DataError(
            f"the generated image {path} cannot be written: {error.strerror}", "free some disk space"
        ) from error


def _generator(seed: int, index: int, split: Split) -> np.random.Generator:
    return np.random.default_rng([seed, _parity(split), index])


def _parity(split: Split) -> int:
    return 0 if split == "train" else 1


def _draw_bin(rng: np.random.Generator, split: Split, bins: int) -> int:
    return int(rng.choice(np.arange(_parity(split), bins, 2)))


def _draw_recipe(rng: np.random.Generator, split: Split) -> Recipe:
    def jittered(position: int) -> float:
        return position + float(rng.uniform(-0.4, 0.4))

    def texture(pattern: Pattern, turn: int, scale: int) -> Texture:
        orientation = jittered(turn) * ORIENTATION_STEP % 180
        return Texture(pattern, orientation, SHORTEST_WAVELENGTH * 2 ** (jittered(scale) / BINS_PER_OCTAVE))

    cues: tuple[Cue, ...] = ("orientation", "scale", "both")
    cue = cues[rng.integers(len(cues))]
    patterns: tuple[Pattern, ...] = ("stripes", "grain", "spots") if cue == "scale" else ("stripes", "grain")
    pattern = patterns[rng.integers(len(patterns))]
    turn = other_turn = _draw_bin(rng, split, ORIENTATION_BINS)
    scale = other_scale = _draw_bin(rng, split, WAVELENGTH_BINS)
    # Even steps between bins stay within the split.
    if cue != "scale":
        other_turn = turn + int(rng.choice([6, 8, 10]))
    if cue != "orientation":
        gap = 6 if cue == "scale" else 2
        scales = range(_parity(split), WAVELENGTH_BINS, 2)
        pairs = [(a, b) for a in scales for b in scales if abs(a - b) >= gap]
        scale, other_scale = pairs[rng.integers(len(pairs))]
    background, hidden = texture(pattern, turn, scale), texture(pattern, other_turn, other_scale)
    hue = jittered(_draw_bin(rng, split, HUE_BINS)) * HUE_STEP % 360
    contrast = LOWEST_CONTRAST + CONTRAST_STEP * jittered(_draw_bin(rng, split, CONTRAST_BINS))
    return Recipe(cue, background, hidden, hue, contrast)


def _draw_object(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """A smooth blob of one to three lobes, bool (size, size), covering 5 to 30 % of the image."""
    y, x = np.mgrid[:size, :size] / size
    while True:
        centre = rng.uniform(0.25, 0.75, 2)
        field = 0.1 * _smooth_noise(rng, size)
        for _ in range(rng.integers(1, 4)):
            lobe = centre + rng.normal(0, 0.11, 2)
            width = rng.uniform(0.12, 0.22)
            field += np.exp(-((x - lobe[0]) ** 2 + (y - lobe[1]) ** 2) / (2 * width**2))
        above = field > np.quantile(field, 1 - rng.uniform(0.07, 0.29))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8))
        largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        if stats[largest, cv2.CC_STAT_AREA] >= 0.05 * size**2:
            return np.asarray(labels == largest)


def _render(rng: np.random.Generator, texture: Texture, size: int) -> Map:
    """The pattern of a texture over a whole image, (size, size), in arbitrary units."""
    angle = np.deg2rad(texture.orientation)
    if texture.pattern == "stripes":
        y, x = np.mgrid[:size, :size]
        phase = 2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / texture.wavelength + rng.random())
        return np.asarray(np.sin(phase + 0.8 * _smooth_noise(rng, size)))
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None, :]
    gain = np.exp(-(((np.hypot(fx, fy) * texture.wavelength - 1) / 0.15) ** 2))
    if texture.pattern == "grain":
        turned = (np.arctan2(fy, fx) - angle + np.pi / 2) % np.pi - np.pi / 2
        gain = gain * np.exp(-((turned / np.deg2rad(12)) ** 2))
    return np.asarray(np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * gain).real)


def _smooth_noise(rng: np.random.Generator, size: int) -> Map:
    """Noise (size, size) with standard deviation 1 that varies over a tenth of the image."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 10)
    return np.asarray(noise / noise.std())


def _ranks(values: Map) -> Map:
    """The rank of each of (n,) values, spread evenly over (0, 1)."""
    ranks = np.empty(values.size)
    ranks[np.argsort(values, kind="stable")] = (np.arange(values.size) + 0.5) / values.size
    return ranks


def _palette(rng: np.random.Generator, recipe: Recipe) -> Map:
    """Dark, middle and light color, (3, 3) RGB in [0, 1], each with its own weak saturation."""
    middle = rng.uniform(0.45, 0.55)
    lightness = middle + recipe.contrast * np.array([-1.0, 0.0, 1.0])
    hls = np.stack([np.full(3, recipe.hue), lightness, rng.uniform(0.05, 0.15, 3)], axis=-1)
    return np.asarray(cv2.cvtColor(hls[None].astype(np.float32), cv2.COLOR_HLS2RGB)[0], np.float64)


def _shading(rng: np.random.Generator, size: int) -> Map:
    """Factors (size, size) around 1 that increase by 10 to 30 % across the image in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size - 0.5
    return np.asarray(1 + rng.uniform(0.1, 0.3) * (x * np.cos(angle) + y * np.sin(angle)))
