"""Shows a record of a benchmark: its tables, and all of it for the terminal.

It measures nothing and adds nothing: every number it shows is in the record. It must cope with whatever was left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yolov10_dysample.study.settings import ADAPTED, COMPILE, OURS, PUBLISHED, STOCK
from yolov10_dysample.study.tables import Table, aligned

__all__ = [
    "PRINTED",
    "cell",
    "conditions",
    "costs_table",
    "growth_table",
    "operator_sentences",
    "operators_table",
    "other_sampling",
    "ratio_cell",
    "runtimes_table",
    "sweep_table",
    "terminal",
]


#: How the report calls what the record names.
PRINTED = {
    "torch": "PyTorch, as `yolo predict`",
    COMPILE: "PyTorch, compiled",
    "torchscript": "TorchScript",
    "onnx": "ONNX Runtime",
    "onnx, dynamic": "ONNX Runtime, dynamic",
    "openvino": "OpenVINO",
    "openvino, f32": "OpenVINO, float32",
    "mnn": "MNN",
    "litert": "LiteRT",
    "executorch": "ExecuTorch",
    "deconvolution": "deconvolution 3x3",
    "pixel shuffle": "conv 3x3 + pixel shuffle",
    "carafe": "CARAFE",
    "dysample": "**DySample**",
    "dysample+": "DySample+",
    "dysample-s": "DySample-S",
    "dysample-s+": "DySample-S+",
    PUBLISHED: "published DySample",
    ADAPTED: "published DySample, made to run",
}
Candidate = dict[str, Any]


def terminal(record: dict[str, Any]) -> str:
    """The whole record, for the terminal."""
    settings = record["settings"]
    parts = [f"{settings['model']}-dysample and {settings['model']}: {conditions(record)}"]
    if "model" in record:
        parts += [
            f"One call of the model, {settings['imgsz']} px, batch {settings['batch']}",
            aligned(runtimes_table(record)),
            *other_sampling(record),
            *_failures(record),
        ]
    if record.get("growth"):
        parts += ["One call of the model by size, stock → DySample in ms, and the ratio", aligned(growth_table(record))]
    if "model" in record or "train" in record:
        parts.append(aligned(costs_table(record)))
    operator = record.get("operator", {})
    if "failed" in operator:
        parts.append(f"Operators: {operator['failed']}")
    elif operator:
        for memory_format in ("channels_last", "contiguous"):
            parts += [f"Operators, {memory_format}", aligned(operators_table(record, memory_format))]
        parts += ["Operators, channels_last, by size", aligned(sweep_table(record)), *operator_sentences(record)]
    return "\n\n".join(parts)


def other_sampling(record: dict[str, Any]) -> list[str]:
    """What the form of sampling costs that a format does not get by itself; nothing of a record without it."""
    words = {"gather": "by gathers", "grid_sample": "by `GridSample`"}
    told = [
        f"{PRINTED.get(name, name)} {words[form]} {ratio_cell(runtime['candidates'][f'{OURS}, {form}'])}"
        for name, runtime in record["model"]["runtimes"].items()
        for form in words
        if f"{OURS}, {form}" in runtime.get("candidates", {})
    ]
    where = "with the other form of sampling"
    return [f"DySample / stock {where}, in the same rounds: {'; '.join(told)}."] if told else []


def runtimes_table(record: dict[str, Any]) -> Table:
    """Milliseconds of a prediction in every runtime; for one that was not measured, why."""
    table = [["runtime", "stock, ms", "DySample, ms", "DySample / stock", "published DySample / stock", "file, MB"]]
    for name, runtime in record["model"]["runtimes"].items():
        label = PRINTED.get(name, name)
        why = runtime.get("missing") or runtime.get("failed")
        if why:
            table.append([label, why, "", "", "", ""])
            continue
        found = runtime["candidates"]
        sizes = [found[key].get("bytes") for key in (STOCK, OURS)]
        files = " → ".join(f"{size / 1e6:.2f}" for size in sizes) if all(sizes) else ""
        ours = ratio_cell(found[OURS])
        table.append([label, cell(found[STOCK], "ms"), cell(found[OURS], "ms"), ours, _published_cell(found), files])
    return _without_empty_published(table)


def growth_table(record: dict[str, Any]) -> Table:
    """Milliseconds of stock and ours by size of the images, a row for each runtime and number of images."""
    sizes = sorted({cell["imgsz"] for cells in record["growth"].values() for cell in cells if isinstance(cells, list)})
    table = [["runtime", "batch", *(f"{size} px" for size in sizes)]]
    for name, cells in record["growth"].items():
        label = PRINTED.get(name, name)
        if not isinstance(cells, list):
            table.append([label, cells.get("missing") or cells["failed"], *("" for _ in sizes)])
            continue
        for batch in sorted({cell["batch"] for cell in cells}):
            found = {cell["imgsz"]: cell["candidates"] for cell in cells if cell["batch"] == batch}
            table.append([label, str(batch), *(_growth_cell(found.get(size)) for size in sizes)])
    return table


def costs_table(record: dict[str, Any]) -> Table:
    """Parameters, multiply-adds, memory and the training step."""
    table = [["", "stock", "DySample", "DySample / stock", "published DySample / stock"]]
    model, train = record.get("model"), record.get("train")
    if model:
        for label, key, show in (("parameters", "parameters", "{:,}"), ("GMACs an image", "gmacs", "{:.4f}")):
            table.append(_size_row(label, model["size"], key, show))
        table.append(_cost_row("peak memory, predicting, MiB", model["memory"], "mib", "{:.0f}".format))
    if train:
        step = "training step, mixed precision, ms" if record["settings"].get("amp") else "training step, ms"
        table.append(_cost_row(step, train["step"], "ms", _milliseconds))
        table.append(_cost_row("peak memory, training, MiB", train["memory"], "mib", "{:.0f}".format))
    return _without_empty_published(table)


def operators_table(record: dict[str, Any], memory_format: str) -> Table:
    """Milliseconds of every upsampler at every shape."""
    entries = [e for e in record["operator"]["shapes"] if e["memory_format"] == memory_format]
    return [
        ["upsampling, ms", *(_shape(entry) for entry in entries), "parameters", "GMACs"],
        *(
            [
                PRINTED.get(name, name),
                *(cell(entry["candidates"][name], "ms") for entry in entries),
                f"{found['parameters']:,}",
                f"{found['gmacs']:.3f}",
            ]
            for name, found in entries[-1]["candidates"].items()
            if "failed" not in found
        ),
    ]


def sweep_table(record: dict[str, Any]) -> Table:
    """Milliseconds of every upsampler by the size of the map."""
    entries = record["operator"]["sweep"]
    return [
        ["upsampling, ms", *(_shape(entry) for entry in entries)],
        *(
            [PRINTED.get(name, name), *(cell(entry["candidates"][name], "ms") for entry in entries)]
            for name, found in entries[0]["candidates"].items()
            if "failed" not in found
        ),
    ]


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _with_quartiles(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['q1']:.2f}, {ratio['q3']:.2f}]"


def cell(candidate: Candidate | None, unit: str, show: Callable[[float], str] = _milliseconds) -> str:
    if candidate is None:
        return "-"
    return "fails" if "failed" in candidate else show(candidate[unit]["median"])


def ratio_cell(candidate: Candidate | None) -> str:
    if candidate is None:
        return "-"
    if "failed" in candidate:
        return "fails"
    return _with_quartiles(candidate["ratio"]) if "ratio" in candidate else "no baseline"


def _growth_cell(candidates: dict[str, Candidate] | None) -> str:
    if candidates is None:
        return "-"
    return f"{cell(candidates[STOCK], 'ms')} → {cell(candidates[OURS], 'ms')}; {ratio_cell(candidates[OURS])}"


def _published_cell(candidates: dict[str, Candidate]) -> str:
    """The ratio of the published code; where that fails, also of the version made to run."""
    plain, adapted = candidates.get(PUBLISHED), candidates.get(ADAPTED)
    if plain is None:
        return ratio_cell(adapted)
    if "failed" in plain and adapted:
        return f"fails; made to run {ratio_cell(adapted)}"
    return ratio_cell(plain)


def _size_row(label: str, size: dict[str, Any], key: str, show: str) -> list[str]:
    if "failed" in size:
        return [label, size["failed"], "", "", ""]
    stock, ours = size[STOCK][key], size[OURS][key]
    published = f"{size[PUBLISHED][key] / stock:.4f}" if PUBLISHED in size else "-"
    return [label, show.format(stock), show.format(ours), f"{ours / stock:.4f}", published]


def _cost_row(label: str, candidates: dict[str, Any], unit: str, show: Callable[[float], str]) -> list[str]:
    if "failed" in candidates:
        return [label, candidates["failed"], "", "", ""]
    figures = [cell(candidates[name], unit, show) for name in (STOCK, OURS)]
    return [label, *figures, ratio_cell(candidates[OURS]), _published_cell(candidates)]


def _without_empty_published(table: Table) -> Table:
    """Leave the column of the published code out where it was not measured; it is the fifth."""
    measured = any(row[4] not in ("", "-") for row in table[1:])
    return table if measured else [row[:4] + row[5:] for row in table]


def _shape(entry: dict[str, Any]) -> str:
    batch, *rest = entry["shape"]
    return "x".join(map(str, rest if batch == 1 else entry["shape"]))


def operator_sentences(record: dict[str, Any]) -> list[str]:
    operator = record["operator"]
    eager = operator.get("ours_over_published")
    if not eager:
        return []
    count = sum(entry["memory_format"] == "channels_last" for entry in operator["shapes"])
    sentences = [
        f"Against the published code, over these {count} shapes (geometric mean): {eager['channels_last']:.2f} of its "
        f"time in channels_last, where it must first be made to run, and {eager['contiguous']:.2f} in NCHW."
    ]
    by_size = [entry for entry in operator["sweep"] if "ours_over_published" in entry]
    if by_size:
        worst = max(by_size, key=lambda entry: entry["ours_over_published"]["median"])
        share = _with_quartiles(worst["ours_over_published"])
        sentences.append(f"Of the sizes in the plot it comes off worst at {_shape(worst)}: {share}.")
    runtime = operator["onnxruntime"]
    known = [e for e in runtime if "ours_over_published" in e] if isinstance(runtime, list) else []
    if known:
        single = " and ".join(f"{_with_quartiles(e['ours_over_published'])} at {_shape(e)}" for e in known)
        sentences.append(f"The operator alone in ONNX Runtime, against the published code: {single}.")
    return sentences


def conditions(record: dict[str, Any]) -> str:
    settings, machine, versions = record["settings"], record["machine"], record["versions"]
    where = machine["gpu"] if settings["device"] != "cpu" else f"{machine['cpu']}, {machine['cores']} cores"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{record['date'][:10]}, revision {record['revision']}, {where}, {machine['system']}, {settings['threads']} "
        f"threads in every runtime; {packages}."
    )


def _failures(record: dict[str, Any]) -> list[str]:
    return [
        f"{PRINTED.get(name, name)}, {candidate}: {found['failed']}"
        for name, runtime in record["model"]["runtimes"].items()
        for candidate, found in runtime.get("candidates", {}).items()
        if "failed" in found
    ]
