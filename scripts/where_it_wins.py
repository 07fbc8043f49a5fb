"""Shows on which images one arm of a comparison finds more than another, and on which less, over all its seeds:
``python -m scripts.where_it_wins runs/compare/trees --data datasets/trees/data.yaml``.

Writes ``where.json`` and ``where.jpg`` into the comparison's folder, or ``--out``; ``--docs`` writes the table of
docs/accuracy.md. Images are chosen by what is drawn of them: this is to look at, and must never be called a result.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image

from yolov10_dysample.figures import PictureRow, draw_detections, layout, png
from yolov10_dysample.files import write_whole
from yolov10_dysample.study.checks import check_out
from yolov10_dysample.study.compare_report import interval
from yolov10_dysample.study.comparison import Run, known_of
from yolov10_dysample.study.paired import paired
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.scoring import GroundTruth, ground_truth, predictions
from yolov10_dysample.study.tables import Table, aligned, between, markdown

RECORD, PICTURE, DOCUMENT = "where.json", "where.jpg", Path("docs/accuracy.md")

#: Images that are drawn of each kind, the least confidence of what is drawn in them, and the picture's width in pixels.
DRAWN, CONFIDENCE, WIDTH = 2, 0.25, 1000
#: The thirds of the images, by their number of objects.
THIRDS = ("fewest", "middle", "most")


class Tile(NamedTuple):
    """One image: its file, its objects (x, y, width, height in pixels), and its differences of precision by seed."""

    file: str
    boxes: list[list[float]]
    differences: dict[int, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.differences.values())))


def precision_by_image(truth: GroundTruth, found: list[dict[str, Any]]) -> dict[int, float]:
    """COCO's average precision of each image alone, by its number; images without objects are left out."""
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(truth.coco)
    boxes = coco.loadRes(found) if found else None
    precision = {}
    for number in sorted({box["image_id"] for box in truth.coco["annotations"]}):
        precision[number] = 0.0
        if boxes is not None and boxes.getAnnIds(imgIds=[number]):
            evaluation = COCOeval_faster(coco, boxes, "bbox", print_function=lambda *_: None)
            evaluation.params.imgIds = [number]
            evaluation.evaluate()
            evaluation.accumulate()
            values = evaluation.eval["precision"][..., 0, -1]
            precision[number] = float(values[values > -1].mean())
    return precision


def compare_images(folder: Path, data: str, arm: str, base: str) -> list[Tile]:
    """Every image of the val split that has objects, the one that gains most first.

    Raises:
        ValueError: If there is no seed of which both arms' weights are in the folder.
    """
    from ultralytics import YOLO

    known = known_of(folder)
    settings = (known.comparison or {}).get("settings", {})
    truth = ground_truth(data)
    runs = {
        (name, seed): Run(name, seed, "", True, data, settings, "cpu", 1, str(folder))
        for name, seed in known.runs
        if name in (arm, base)
    }
    there = {key for key, run in runs.items() if run.weights.is_file()}
    seeds = sorted(seed for name, seed in there if name == arm and (base, seed) in there)
    if not seeds:
        raise ValueError(f"{folder} must have weights of {arm} and of {base} with the same seed, got {sorted(there)}")
    found = {
        key: precision_by_image(truth, predictions(YOLO(runs[key].weights), runs[key], truth))
        for key in [(name, seed) for name in (arm, base) for seed in seeds]
    }
    boxes = collections.defaultdict(list)
    for box in truth.coco["annotations"]:
        boxes[box["image_id"]].append([float(value) for value in box["bbox"]])
    tiles = [
        Tile(
            truth.files[number - 1],
            boxes[number],
            {seed: found[arm, seed][number] - found[base, seed][number] for seed in seeds},
        )
        for number in found[arm, seeds[0]]
    ]
    return sorted(tiles, key=lambda tile: -tile.mean)


def by_crowding(tiles: Sequence[Tile]) -> dict[str, dict[str, Any]]:
    """The paired differences, by seed, of the means over the third of the images with the fewest objects, and so on."""
    ordered = sorted(tiles, key=lambda tile: len(tile.boxes))
    found = {}
    for name, part in zip(THIRDS, np.array_split(np.arange(len(ordered)), len(THIRDS)), strict=True):
        rows = [ordered[i] for i in part]
        if not rows:  # of fewer images than there are parts
            continue
        seeds = rows[0].differences
        gains: dict[int, float | None] = {
            seed: float(np.mean([row.differences[seed] for row in rows])) for seed in seeds
        }
        about = {"images": len(rows), "objects": [len(rows[0].boxes), len(rows[-1].boxes)]}
        found[name] = {**about, **(paired(gains, dict.fromkeys(seeds, 0.0)) or {})}
    return found


def picture(tiles: Sequence[Tile], folder: Path, arm: str, base: str, imgsz: int) -> bytes:
    """The images that gain and lose most, by both arms, of the seed whose difference is nearest to the mean."""
    from ultralytics import YOLO
    from ultralytics.utils.patches import imread

    chosen = [*tiles[:DRAWN], *tiles[DRAWN:][-DRAWN:]]
    images = [np.asarray(imread(tile.file)) for tile in chosen]  # as Ultralytics reads them: turned, if they say so
    shapes = [image.shape[0] / image.shape[1] for image in images]
    figure, axes = layout([PictureRow([shape] * 2, above=0.5, below=0.1) for shape in shapes], header=0.1)
    for k, (tile, image) in enumerate(zip(chosen, images, strict=True)):
        seed = min(tile.differences, key=lambda seed: abs(tile.differences[seed] - tile.mean))
        notes = (
            f"AP, {arm} less {base}: {tile.mean:+.3f} (mean of {len(tile.differences)} seeds)",
            f"seed {seed}, confidence from {CONFIDENCE:g}; dashed: the {len(tile.boxes)} labelled",
        )
        for axis, name, note in zip(axes[2 * k : 2 * k + 2], (base, arm), notes, strict=True):
            weights = Run(name, seed, "", True, "", {}, "cpu", 1, str(folder)).weights
            model: Any = YOLO(weights)
            result = model.predict(image, imgsz=imgsz, conf=CONFIDENCE, verbose=False)[0]
            draw_detections(axis, result, labels=False)
            for x, y, width, height in tile.boxes:
                for colour, line, style in (("black", 2.4, "-"), ("white", 1.2, "--")):
                    axis.add_patch(Rectangle((x, y), width, height, fill=False, color=colour, lw=line, ls=style))
            axis.set_title(f"{note}\n{name}: {len(result)} detections", size=11)
    with Image.open(io.BytesIO(png(figure))) as drawn:
        file = io.BytesIO()
        drawn.convert("RGB").resize((WIDTH, WIDTH * drawn.height // drawn.width)).save(file, "JPEG", quality=80)
    return file.getvalue()


def table(record: dict[str, Any]) -> Table:
    """The differences by crowding."""
    rows = [["images with", "objects in each", f"{record['arm']} less {record['base']}, AP of the image"]]
    for name, row in record["crowding"].items():
        bounds = f" {interval(row)}" if "interval" in row else ""
        gain = f"{row['mean']:+.3f}{bounds} ({row['n']} seeds)"
        rows.append([f"the {name} objects, {row['images']}", "{} to {}".format(*row["objects"]), gain])
    return rows


def with_section(document: str, record: dict[str, Any], folder: str) -> str:
    """A document with the table and the picture of a record in ``folder``, as a link from there has it."""
    caption = (
        f"The {DRAWN} images whose AP gains most from {record['arm']} in place of {record['base']}, and the {DRAWN} "
        f"that lose most. AP counts boxes of any confidence; drawn are those of one seed from {CONFIDENCE:g} on"
    )
    return between(document, "where", f"{markdown(table(record))}\n\n![{caption}]({folder}/{PICTURE})")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of `yolov10-dysample compare`, with its weights")
    parser.add_argument("--data", required=True, help="the comparison's data set YAML")
    parser.add_argument("--arm", default="dysample", help="(%(default)s)")
    parser.add_argument("--base", default="bilinear", help="the arm it is compared with (%(default)s)")
    parser.add_argument("--out", type=Path, help="another folder than the comparison's")
    parser.add_argument("--docs", action="store_true", help=f"write the table into {DOCUMENT} (in a clone)")
    options = parser.parse_args(argv)
    out = options.out or options.folder
    if options.docs and not DOCUMENT.is_file():
        parser.error(f"--docs must be used in a clone, where {DOCUMENT} is; got {Path.cwd()}")
    try:
        check_out(out, 0, 0, 0)  # before minutes of predictions
        tiles = compare_images(options.folder, options.data, options.arm, options.base)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    imgsz = (known_of(options.folder).comparison or {})["settings"]["imgsz"]
    record = {
        "what": "mAP50-95 of each image alone, the arm's less the base's, by seed",
        **environment_record(),
        "arm": options.arm,
        "base": options.base,
        "crowding": by_crowding(tiles),
        "images": [{**tile._asdict(), "file": Path(tile.file).name, "mean": tile.mean} for tile in tiles],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    write_whole(out / PICTURE, picture(tiles, options.folder, options.arm, options.base, imgsz))
    if options.docs:
        folder = Path(os.path.relpath(out, DOCUMENT.parent)).as_posix()
        write_whole(DOCUMENT, with_section(DOCUMENT.read_text(encoding="utf-8"), record, folder).encode())
    print(aligned(table(record)))


if __name__ == "__main__":
    main()
