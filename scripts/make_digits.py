"""Make a small detection data set on the spot: the real handwritten digits of scikit-learn pasted on its two sample
photographs, in Ultralytics YOLO format, so that training, validation and the demo can be tried without a download. It
must never use the network, never show a validation digit or a validation part of a photograph in training, and never
delete or change a folder it did not write.

Run ``python -m scripts.make_digits --help`` in the repository's folder, or call :func:`make_digits` from another
script.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from scripts.dataset_folder import Dataset, Maker, data_yaml, encode_png, require_whole_number

SPLITS = ("train", "val")
VAL_DIGITS = 0.2
VAL_PHOTO = 1 / 3
CROP_SIDE = (80, 200)  # the validation part of a photograph is 213 px wide, and both splits must see the same scales
INK = 0.25
MIN_CONTRAST = 60.0
OPACITY = (0.8, 1.0)
MARGIN = 2
ATTEMPTS = 40
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Box(NamedTuple):
    """One pasted digit: its row in ``load_digits()``, its value 0..9, its box in pixels from its left top."""

    digit: int
    value: int
    x: int
    y: int
    w: int
    h: int


class Scene(NamedTuple):
    """One image (uint8[imgsz, imgsz, 3], RGB), the same before any digit was pasted, and the boxes of the digits."""

    image: np.ndarray
    background: np.ndarray
    boxes: list[Box]


class Sources(NamedTuple):
    """Glyphs (float32[1797, 8, 8], 0..1), their values (int[1797]) and photographs (uint8[h, w, 3], RGB)."""

    glyphs: np.ndarray
    values: np.ndarray
    photos: list[np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """The arguments that decide every byte of the data set.

    Raises:
        ValueError: an argument breaks its rule; the message gives the rule, the value and what to write instead.
    """

    train: int = 480
    val: int = 120
    imgsz: int = 128
    classes: int = 1
    min_size: int = 10
    max_size: int = 32
    max_digits: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        lowest = {"seed": 0}
        for name, value in vars(self).items():
            require_whole_number(name, value, lowest.get(name, 1))
        if self.classes not in (1, 10):
            raise ValueError(
                f"classes must be 1 (any digit) or 10 (0 to 9), got {self.classes}; write classes=1 or classes=10"
            )
        if self.min_size > self.max_size:
            raise ValueError(
                f"min_size must not exceed max_size, got min_size={self.min_size} and max_size={self.max_size}; "
                f"write min_size={self.max_size} or less"
            )
        if self.imgsz < self.max_size:
            raise ValueError(
                f"imgsz must be at least the largest digit, got imgsz={self.imgsz} and max_size={self.max_size}; "
                f"write imgsz={self.max_size} or more, or a smaller max_size"
            )

    @property
    def names(self) -> list[str]:
        """Class names, in label order."""
        return ["digit"] if self.classes == 1 else [str(value) for value in range(10)]


def files(record: dict[str, Any]) -> list[str]:
    """The files of a data set with these arguments."""
    names = ["data.yaml", "digits.csv", "digits.json", "contact_sheet.png"]
    for split in SPLITS:
        for index in range(record[split]):
            names += [f"images/{split}/{index:06d}.png", f"labels/{split}/{index:06d}.txt"]
    return names


MAKER = Maker("digits", "make_digits", version=1, files=files)


def load_sources() -> Sources:
    """Load the digits and photographs that scikit-learn ships.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the digits and photographs come with scikit-learn, which cannot be imported ({error}); "
            "run: pip install scikit-learn"
        ) from error
    digits = load_digits()
    return Sources((digits.images / 16).astype(np.float32), digits.target, load_sample_images().images)


def split_digits(values: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Share out the digits: 80 % of each value to train, the rest to val, none to both.

    Args:
        values (int[n]): value of each digit.
        seed (int): seed, at least 0.

    Returns:
        Sorted row numbers for each split.

    Examples:
        >>> {split: len(rows) for split, rows in split_digits(np.repeat(np.arange(10), 5), seed=0).items()}
        {'train': 40, 'val': 10}
    """
    rng = np.random.default_rng([seed, len(SPLITS)])
    is_val = np.zeros(len(values), bool)
    for value in np.unique(values):
        rows = rng.permutation(np.flatnonzero(values == value))
        is_val[rows[: round(VAL_DIGITS * len(rows))]] = True
    return {"train": np.flatnonzero(~is_val), "val": np.flatnonzero(is_val)}


def photo_part(photo: np.ndarray, split: str) -> np.ndarray:
    """The part of a photograph that a split may use: the left third for val, the rest for train.

    The right third would not do for val: it holds sky and shade only, so that validation would be easier than training.
    """
    cut = round(VAL_PHOTO * photo.shape[1])
    return photo[:, :cut] if split == "val" else photo[:, cut:]


def draw_background(photos: list[np.ndarray], split: str, imgsz: int, rng: np.random.Generator) -> np.ndarray:
    """A random square crop (place, scale, flip) of a split's part of a random photograph (uint8[imgsz, imgsz, 3])."""
    part = photo_part(photos[rng.integers(len(photos))], split)
    side = int(rng.integers(CROP_SIDE[0], CROP_SIDE[1], endpoint=True))
    top, left = (int(rng.integers(length - side, endpoint=True)) for length in part.shape[:2])
    crop = part[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return cv2.resize(
        np.ascontiguousarray(crop), (imgsz, imgsz), interpolation=cv2.INTER_AREA if side > imgsz else cv2.INTER_CUBIC
    )


def crop_to_ink(alpha: np.ndarray) -> np.ndarray:
    """Cut away the border rows and columns that hold no visible ink."""
    rows, columns = (np.flatnonzero((alpha > INK).any(axis=axis)) for axis in (1, 0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def render_glyph(glyph: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a digit so that its visible ink is exactly ``size`` pixels on the longer side.

    Args:
        glyph (float32[8, 8]): ink, 0..1.
        size (int): longer side in pixels, at least 1.

    Returns:
        Alpha (float32[h, w], 0..1) whose four borders all carry visible ink.
    """
    fine = cv2.resize(np.pad(glyph, 1), None, fx=24, fy=24, interpolation=cv2.INTER_CUBIC)
    # Strokes of the 8x8 scans are grey all over; without this they look like smoke on a photograph.
    fine = crop_to_ink(np.clip((fine - 0.3) / 0.5, 0, 1))
    h, w = (max(1, round(size * length / max(fine.shape))) for length in fine.shape)
    alpha = cv2.resize(fine, (w, h), interpolation=cv2.INTER_AREA).clip(0, 1)
    # Averaging can thin a border below what is visible, and the box would then be larger than the digit one sees.
    for border in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
        border *= max(1.0, 1.2 * INK / float(border.max()))
    return alpha


def choose_ink(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random ink colour, darker or lighter than the background by at least ``MIN_CONTRAST`` plus its spread.

    Where black and white both fall short of that, the ink is the one of the two that stands out more.

    Args:
        patch (uint8[h, w, 3]): background around the digit, RGB.
        rng (np.random.Generator): source of chance.

    Returns:
        Colour (float32[3], RGB, 0..255).
    """
    grey = patch.astype(np.float32) @ LUMA
    mean = float(grey.mean())
    room = {-1: mean, 1: 255 - mean}
    least = min(MIN_CONTRAST + float(grey.std()), max(room.values()))
    sign = int(rng.choice([sign for sign in room if room[sign] >= least]))
    luma = mean + sign * rng.uniform(least, min(room[sign], least + 80))
    tint = rng.uniform(-70, 70, 3).astype(np.float32)
    # A tint without luma, shrunk to fit 0..255, leaves the contrast as chosen.
    tint -= tint @ LUMA
    tint *= min(1.0, min(luma, 255 - luma) / max(float(np.abs(tint).max()), 1e-6))
    return np.float32(luma) + tint


def compose_scene(sources: Sources, digits: np.ndarray, split: str, index: int, recipe: Recipe) -> Scene:
    """Compose one image; it depends on seed, split, index and sizes, never on how many images there are.

    Args:
        sources (Sources): see :func:`load_sources`.
        digits (int[n]): rows of the digits this split may use, see :func:`split_digits`.
        split (str): "train" or "val".
        index (int): number of the image in its split.
        recipe (Recipe): arguments.

    Returns:
        The scene, with 1 to ``max_digits`` boxes that keep ``MARGIN`` pixels between them.
    """
    rng = np.random.default_rng([recipe.seed, SPLITS.index(split), index])
    background = draw_background(sources.photos, split, recipe.imgsz, rng)
    image = background.copy()
    boxes: list[Box] = []
    count = min(int(rng.integers(1, recipe.max_digits, endpoint=True)), len(digits))
    for row in rng.choice(digits, count, replace=False).tolist():
        alpha = render_glyph(sources.glyphs[row], int(rng.integers(recipe.min_size, recipe.max_size, endpoint=True)))
        h, w = alpha.shape
        for _ in range(ATTEMPTS):
            x, y = (int(rng.integers(recipe.imgsz - length, endpoint=True)) for length in (w, h))
            if all(
                x >= b.x + b.w + MARGIN or b.x >= x + w + MARGIN or y >= b.y + b.h + MARGIN or b.y >= y + h + MARGIN
                for b in boxes
            ):
                paste(image, alpha, x, y, rng)
                boxes.append(Box(row, int(sources.values[row]), x, y, w, h))
                break
    return Scene(image, background, boxes)


def paste(image: np.ndarray, alpha: np.ndarray, x: int, y: int, rng: np.random.Generator) -> None:
    """Blend a digit into an image, in place, in a colour that stands out from what was there."""
    h, w = alpha.shape
    ink = choose_ink(image[max(0, y - MARGIN) : y + h + MARGIN, max(0, x - MARGIN) : x + w + MARGIN], rng)
    weight = (alpha * rng.uniform(*OPACITY))[..., None]
    spot = image[y : y + h, x : x + w]
    spot[:] = np.rint(spot * (1 - weight) + ink * weight).astype(np.uint8)


def label_lines(boxes: list[Box], recipe: Recipe) -> str:
    """YOLO labels: class, then centre x, centre y, width and height as shares of the image."""
    lines = []
    for box in boxes:
        shares = [pixels / recipe.imgsz for pixels in (box.x + box.w / 2, box.y + box.h / 2, box.w, box.h)]
        label = box.value if recipe.classes == 10 else 0
        lines.append(f"{label} {' '.join(f'{share:.6f}' for share in shares)}\n")
    return "".join(lines)


def contact_sheet(
    scenes: dict[str, list[Scene]], recipe: Recipe, columns: int = 6, cell: int = 192, gap: int = 8
) -> np.ndarray:
    """A picture to look at: two rows of images for each split with their boxes, each pair under the name of its split.

    Args:
        scenes (dict[str, list[Scene]]): the first scenes of each split.
        recipe (Recipe): arguments.
        columns (int): images in a row.
        cell (int): side of an image in pixels.
        gap (int): space between images in pixels.

    Returns:
        uint8[h, w, 3], RGB; 1208 pixels wide by default.
    """
    paper, text, title, zoom = (250, 250, 248), (60, 60, 60), 34, cell / recipe.imgsz
    width = gap + columns * (cell + gap)
    bands = []
    for split, members in scenes.items():
        rows = -(-len(members) // columns)
        band = np.full((title + rows * (cell + gap), width, 3), paper, np.uint8)
        caption = f"{split}: {len(members)} of {getattr(recipe, split)} images"
        cv2.putText(band, caption, (gap, title - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.6, text, 1, cv2.LINE_AA)
        for place, scene in enumerate(members):
            top = title + place // columns * (cell + gap)
            left = gap + place % columns * (cell + gap)
            tile = cv2.resize(scene.image, (cell, cell), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
            for box in scene.boxes:
                draw_box(tile, box, zoom, recipe)
            band[top : top + cell, left : left + cell] = tile
        bands.append(band)
    return np.vstack([*bands, np.full((gap, width, 3), paper, np.uint8)])


def draw_box(tile: np.ndarray, box: Box, zoom: float, recipe: Recipe) -> None:
    """Draw the frame of a box just outside its ink, and its class name when there is more than one class."""
    hue = 150 if recipe.classes == 1 else 18 * box.value
    colour = cv2.cvtColor(np.array([[[hue, 200, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    left, top = round(box.x * zoom) - 2, round(box.y * zoom) - 2
    right, bottom = round((box.x + box.w) * zoom) + 1, round((box.y + box.h) * zoom) + 1
    shaded = cv2.rectangle(tile.copy(), (left, top), (right, bottom), (0, 0, 0), 3)
    tile[:] = cv2.addWeighted(tile, 0.6, shaded, 0.4, 0)
    cv2.rectangle(tile, (left, top), (right, bottom), colour, 1)
    if recipe.classes == 10:
        corner = (
            min(max(right - 8, 2), tile.shape[1] - 10),
            top - 4 if top >= 16 else min(bottom + 13, tile.shape[0] - 3),
        )
        for ink, thickness in (((0, 0, 0), 3), (colour, 1)):
            cv2.putText(tile, str(box.value), corner, cv2.FONT_HERSHEY_SIMPLEX, 0.42, ink, thickness, cv2.LINE_AA)


def write_dataset(folder: Path, root: Path, recipe: Recipe, progress: Callable[[int, int], None] | None) -> None:
    """Write all but the record to ``folder``, with the path of ``root``, where it will be moved to."""
    sources = load_sources()
    pools = split_digits(sources.values, recipe.seed)
    shown: dict[str, list[Scene]] = {split: [] for split in SPLITS}
    manifest: list[tuple[str | int, ...]] = [("split", "image", *Box._fields)]
    done, total = 0, recipe.train + recipe.val
    for split in SPLITS:
        images, labels = (folder / kind / split for kind in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(getattr(recipe, split)):
            scene = compose_scene(sources, pools[split], split, index, recipe)
            (images / f"{index:06d}.png").write_bytes(encode_png(scene.image))
            (labels / f"{index:06d}.txt").write_text(label_lines(scene.boxes, recipe), encoding="utf-8", newline="\n")
            manifest += [(split, f"{index:06d}", *box) for box in scene.boxes]
            if index < 12:
                shown[split].append(scene)
            done += 1
            if progress:
                progress(done, total)
    with (folder / "digits.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(manifest)
    (folder / "contact_sheet.png").write_bytes(encode_png(contact_sheet(shown, recipe)))
    text = data_yaml("make_digits", root, SPLITS, recipe.names)
    (folder / "data.yaml").write_text(text, encoding="utf-8", newline="\n")


def make_digits(
    out: str | Path = "datasets/digits",
    *,
    train: int = 480,
    val: int = 120,
    imgsz: int = 128,
    classes: int = 1,
    min_size: int = 10,
    max_size: int = 32,
    max_digits: int = 6,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Make the data set, or find it already made with the same arguments.

    The same arguments give the same images and labels byte for byte (with the same versions of NumPy, OpenCV and
    Pillow). ``digits.csv`` has a row a box: split, image, digit (row in ``load_digits()``), value, x, y, w, h.
    Everything is written to a temporary folder beside ``out`` and renamed at the end, so ``out`` is never half-written.

    Args:
        out (str | Path): folder of the data set; must not exist, or be one that this function wrote.
        train (int): number of training images, at least 1.
        val (int): number of validation images, at least 1.
        imgsz (int): side of the square images in pixels, at least ``max_size``.
        classes (int): 1 (all digits are "digit") or 10 ("0" to "9").
        min_size (int): smallest longer side of a box in pixels, at least 1.
        max_size (int): largest longer side of a box in pixels.
        max_digits (int): most digits in an image, at least 1; fewer are placed where they do not fit.
        seed (int): seed, at least 0.
        force (bool): replace a data set that this function made before.
        progress (Callable[[int, int], None] | None): called after each image with the images done and the total.

    Returns:
        The data set; give ``.data`` to Ultralytics.

    Raises:
        ValueError: an argument breaks its rule.
        FileExistsError: ``out`` is not ours, or was made with other arguments and ``force`` is False.
        ModuleNotFoundError: scikit-learn is not installed.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     dataset = make_digits(Path(folder) / "digits", train=2, val=1, imgsz=64)
        ...     sorted(path.name for path in dataset.root.iterdir())
        ['contact_sheet.png', 'data.yaml', 'digits.csv', 'digits.json', 'images', 'labels']
    """
    recipe = Recipe(train, val, imgsz, classes, min_size, max_size, max_digits, seed)

    def write(folder: Path, root: Path) -> dict[str, Any]:
        write_dataset(folder, root, recipe, progress)
        return {}

    return MAKER.make(out, vars(recipe), write, force)


def describe(dataset: Dataset) -> str:
    """Where the data set is, and how many images and boxes of which size it holds."""
    rows = dataset.manifest()
    sizes = np.array([max(int(row["w"]), int(row["h"])) for row in rows])
    quartiles = " / ".join(f"{size:g}" for size in np.percentile(sizes, (0, 25, 50, 75, 100), method="nearest"))
    lines = [dataset.headline]
    for split in SPLITS:
        images = len(list((dataset.root / "images" / split).glob("*.png")))
        lines.append(f"  {split + ':':6} {images} images, {sum(row['split'] == split for row in rows)} boxes")
    lines += [
        f"  longer side of a box: {quartiles} px (least, quartiles, most)",
        f"  data={dataset.data}",
        f"  look at {dataset.root / 'contact_sheet.png'}",
    ]
    return "\n".join(lines)


def show_progress(done: int, total: int) -> None:
    """Keep one line of standard error up to date; a log file gets only the last state."""
    if done == total or (sys.stderr.isatty() and done % 20 == 0):
        start = "\r" if sys.stderr.isatty() else ""
        print(
            f"{start}composing images: {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True
        )


def main(argv: list[str] | None = None) -> None:
    """Command line of :func:`make_digits`."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.make_digits",
        description="Make a digit detection data set from what scikit-learn ships, without a download.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", default="datasets/digits", help="folder of the data set")
    parser.add_argument("--train", type=int, default=Recipe.train, help="number of training images")
    parser.add_argument("--val", type=int, default=Recipe.val, help="number of validation images")
    parser.add_argument("--imgsz", type=int, default=Recipe.imgsz, help="side of the images in pixels")
    parser.add_argument("--classes", type=int, default=Recipe.classes, help="1 (digit) or 10 (0 to 9)")
    parser.add_argument("--min-size", type=int, default=Recipe.min_size, help="smallest longer side of a box in pixels")
    parser.add_argument("--max-size", type=int, default=Recipe.max_size, help="largest longer side of a box in pixels")
    parser.add_argument("--max-digits", type=int, default=Recipe.max_digits, help="most digits in an image")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="same seed, same data set")
    parser.add_argument("--force", action="store_true", help="replace a data set that this script made before")
    arguments = parser.parse_args(argv)
    try:
        dataset = make_digits(**vars(arguments), progress=show_progress)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    print(describe(dataset))


if __name__ == "__main__":
    main()
