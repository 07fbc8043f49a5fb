"""Shows results/precision.json as the tables of docs/export.md. It measures nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.tables import Table, between, markdown

DOCUMENT = Path("docs/export.md")

#: What ``quantize=`` makes of a file, in words.
PRECISION_NAMES = {
    "32": "float32 file, run in bfloat16",
    "16": "half",
    "8": "int8",
    "w8a32": "int8 weights",
}
#: MNN's own int8 is of weights only.
OWN_NAMES = {("mnn", "8"): "int8 weights"}
#: What is counted of an export: its name in the table, and whether more of it is better.
SCORES = {"iou": ("IoU", True), "confidence": ("confidence", False), "unmatched": ("unmatched", False)}
#: Differences of mean IoU, of mean confidence or of the share of unmatched boxes that matter to nobody.
NEGLIGIBLE = 0.001


def section(record: dict[str, Any]) -> str:
    """The tables, and what must be known to read them."""
    settings = record["settings"]
    arms = next(iter(next(iter(record["formats"].values()))["precisions"].values()))
    return "\n\n".join(
        [
            f"YOLOv10n of COCO at {settings['imgsz']} px, on {settings['images']} photographs and parts of them "
            f"in which stock finds {arms['stock']['boxes']} boxes. Each export against its own float32 export in the "
            f"same runtime: mean IoU of boxes that match (of one class, with an IoU of {settings['same_box']:g} or "
            "more), mean difference of their confidence, and unmatched boxes per 100.",
            markdown(precision_table(record)),
            '*DySample*: swapped with `init="nearest"`; *with offsets*: the same with offsets of '
            f"{settings['offsets']:g} px, with which it finds {arms['moved']['boxes']} boxes: one of them without a "
            f"match is {100 / arms['moved']['boxes']:.1f}. Static int8 is calibrated with photographs, the same for "
            "all: the mean of "
            f"{settings['calibrations']} sets of {settings['calibration_images']}, for LiteRT each of them in "
            f"{_orders(record)} orders, since its calibration is a moving average. *Against stock*: "
            f"a difference is named, of *DySample* and then of *with offsets*, if it is at least {NEGLIGIBLE:g} and "
            f"its {settings['coverage']:.0%} interval over photographs and calibrations, drawn again, leaves out 0; "
            "where none is shown there may still be one. OpenVINO computes in "
            f"float32 here, but in its first row. {_versions(record)}; {record['machine']['cpu']}; "
            f"revision {_revisions(record)}, `-dirty` with changes not committed then; `python -m scripts.precision`.",
            "**An engine that computes all in float16, simulated and not run.** In the ONNX graph of the whole model "
            f"(COCO's weights, offsets of {settings['offsets']:g} px) every number is rounded to float16, constants "
            "and the result of each node, and ONNX Runtime runs it without optimisation. Counted is how far a layer "
            "samples from where float64 puts the places, for the map that reached the layer. An engine may fuse nodes "
            "and round less; within `GridSample` it may round more.",
            markdown(engine_table(record)),
        ]
    )


def _orders(record: dict[str, Any]) -> int:
    calibrated = record["formats"]["litert"]["precisions"]["8"]["stock"]["iou"]
    return len(calibrated) // record["settings"]["calibrations"]


def _versions(record: dict[str, Any]) -> str:
    names = ("ultralytics", "onnxruntime", "openvino", "nncf", "MNN", "ncnn", "litert-torch", "ai-edge-quantizer")
    return ", ".join(f"{name} {record['versions'][name]}" for name in names)


def _revisions(record: dict[str, Any]) -> str:
    """What each format was measured with; ``-dirty`` is with changes that were not committed."""
    by_revision: dict[str, list[str]] = {}
    for export_format, measured in record["formats"].items():
        by_revision.setdefault(measured["revision"], []).append(export_format)
    return ", ".join(f"{revision} ({', '.join(formats)})" for revision, formats in by_revision.items())


def precision_table(record: dict[str, Any]) -> Table:
    table = [["export", "stock", "DySample", "with offsets", "against stock"]]
    for export_format, measured in record["formats"].items():
        for precision, arms in measured["precisions"].items():
            name = OWN_NAMES.get((export_format, precision), PRECISION_NAMES[precision])
            verdicts = dict.fromkeys(_verdict(arms[arm]["beside_stock"]) for arm in ("swapped", "moved"))
            cells = [_cell(arms[arm]) for arm in ("stock", "swapped", "moved")]
            table.append([f"{export_format}, {name}", *cells, "; then ".join(verdicts)])
    return table


def _cell(scores: dict[str, Any]) -> str:
    iou, confidence, unmatched = (sum(scores[name]) / len(scores[name]) for name in SCORES)
    return f"{iou:.3f}, {confidence:.3f}, {100 * unmatched:.1f}"


def _verdict(beside_stock: dict[str, Any]) -> str:
    told = {
        wanted: [SCORES[name][0] for name, score in beside_stock.items() if verdict(name, score) == wanted]
        for wanted in ("worse", "closer")
    }
    return (
        ", ".join(f"{wanted} in {' and '.join(names)}" for wanted, names in told.items() if names)
        or "no difference shown"
    )


def verdict(name: str, score: dict[str, Any]) -> str:
    """``closer`` or ``worse`` than stock, if it is not negligible nor due to chance; else ``no difference shown``.

    Example:
        >>> verdict("iou", {"difference": -0.02, "interval": [-0.03, -0.01]})
        'worse'
        >>> verdict("iou", {"difference": -0.02, "interval": [-0.05, 0.01]})
        'no difference shown'
    """
    low, high = score["interval"]
    if low <= 0 <= high or abs(score["difference"]) < NEGLIGIBLE:
        return "no difference shown"
    return "closer" if (low > 0) == SCORES[name][1] else "worse"


def engine_table(record: dict[str, Any]) -> Table:
    sampling = {"gather": "gathers", "grid_sample": "`GridSample`"}
    table = [["image, px", "layer, its map", *(f"{name}: largest error, mean, px" for name in sampling.values())]]
    rows = {(row["sampling"], row["imgsz"], row["layer"]): row for row in record["half_engine"]}
    for form, imgsz, layer in rows:
        if form == next(iter(sampling)):
            of_forms = [rows[other, imgsz, layer] for other in sampling]
            height, width = of_forms[0]["map"]
            errors = [f"{row['largest']:.4f}, {row['mean']:.4f}" for row in of_forms]
            table.append([str(imgsz), f"{layer}, {height} x {width}", *errors])
    return table


def with_section(document: str, record: dict[str, Any]) -> str:
    """The document with the record's tables between its markers."""
    return between(document, "precision", section(record))


def write_docs(record: dict[str, Any]) -> None:
    """Write the tables into docs/export.md of the current folder."""
    write_whole(DOCUMENT, with_section(DOCUMENT.read_text(encoding="utf-8"), record).encode())
