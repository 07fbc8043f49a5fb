"""Shows a record of scripts/benchmark.py: tables on the terminal, a plot beside the record, the README's section.

It measures nothing and adds nothing: every number it prints is in the record.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"

STOCK, OURS, PUBLISHED = "stock", "dysample", "published"
ADAPTED = "published, made to accept channels_last"

#: How the report calls what the record names.
PRINTED = {
    "eager": "PyTorch, as `yolo predict`",
    "torchscript": "TorchScript",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino, f32": "OpenVINO, float32",
    "mnn": "MNN",
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
Table = list[list[str]]


def milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def times(quartiles: dict[str, float]) -> str:
    """A ratio with its quartiles."""
    return f"{quartiles['median']:.2f} [{quartiles['q1']:.2f}, {quartiles['q3']:.2f}]"


def cell(candidate: dict[str, Any] | None, unit: str, show: Any = milliseconds) -> str:
    if candidate is None:
        return "-"
    return "fails" if "failed" in candidate else show(candidate[unit]["median"])


def ratio_cell(candidate: dict[str, Any] | None) -> str:
    if candidate is None:
        return "-"
    return "fails" if "failed" in candidate else times(candidate["ratio"]) if "ratio" in candidate else "no baseline"


def published(candidates: dict[str, Any]) -> str:
    """The ratio of the published code; where that fails, also of the version made to run."""
    plain, adapted = candidates.get(PUBLISHED), candidates.get(ADAPTED)
    if plain is None:
        return ratio_cell(adapted)
    if "failed" in plain and adapted:
        return f"fails; made to run {ratio_cell(adapted)}"
    return ratio_cell(plain)


def runtimes_table(record: dict[str, Any]) -> Table:
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
        table.append([label, cell(found[STOCK], "ms"), cell(found[OURS], "ms"), ours, published(found), files])
    return table


def costs_table(record: dict[str, Any]) -> Table:
    table = [["", "stock", "DySample", "DySample / stock", "published DySample / stock"]]
    model, train = record.get("model"), record.get("train")
    if model:
        size = model["size"]
        for label, key, show in (("parameters", "parameters", "{:,}"), ("GMACs an image", "gmacs", "{:.4f}")):
            figures = [size[name][key] for name in (STOCK, OURS, PUBLISHED)]
            ratios = [f"{figure / figures[0]:.4f}" for figure in figures[1:]]
            table.append([label, *(show.format(figure) for figure in figures[:2]), *ratios])
        table.append(cost_row("peak memory, predicting, MiB", model["memory"], "mib", "{:.0f}".format))
    if train:
        table.append(cost_row("training step, ms", train["step"], "ms", milliseconds))
        table.append(cost_row("peak memory, training, MiB", train["memory"], "mib", "{:.0f}".format))
    return table


def cost_row(label: str, candidates: dict[str, Any], unit: str, show: Any) -> list[str]:
    figures = [cell(candidates[name], unit, show) for name in (STOCK, OURS)]
    return [label, *figures, ratio_cell(candidates[OURS]), published(candidates)]


def operators_table(record: dict[str, Any], memory_format: str) -> Table:
    """Milliseconds of every upsampler at every shape."""
    entries = [e for e in record["operator"]["shapes"] if e["memory_format"] == memory_format]
    return [
        ["upsampling, ms", *(shape(entry) for entry in entries), "parameters", "GMACs"],
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
    entries = record["operator"]["sweep"]
    return [
        ["upsampling, ms", *(shape(entry) for entry in entries)],
        *(
            [PRINTED.get(name, name), *(cell(entry["candidates"][name], "ms") for entry in entries)]
            for name, found in entries[0]["candidates"].items()
            if "failed" not in found
        ),
    ]


def shape(entry: dict[str, Any]) -> str:
    batch, *rest = entry["shape"]
    return "x".join(map(str, rest if batch == 1 else entry["shape"]))


def operator_sentences(record: dict[str, Any]) -> list[str]:
    operator = record["operator"]
    eager = operator["ours_over_published"]
    count = sum(entry["memory_format"] == "channels_last" for entry in operator["shapes"])
    sentences = [
        f"Against the published code, over these {count} shapes (geometric mean): {eager['channels_last']:.2f} of its "
        f"time in channels_last, where it must first be made to run, and {eager['contiguous']:.2f} in NCHW."
    ]
    runtime = operator["onnxruntime"]
    if isinstance(runtime, list):
        single = " and ".join(f"{times(e['ours_over_published'])} at {shape(e)}" for e in runtime)
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


def markdown(table: Table) -> str:
    header, *rows = table
    rule = ["---", *["---:" for _ in header[1:]]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def aligned(table: Table) -> str:
    """For the terminal: the first column to the left, numbers to the right."""
    plain = [[re.sub(r"[*`]", "", text) for text in row] for row in table]
    # In a wide table, a row with nothing after its second cell is a remark, and must not widen a column.
    figures = [row for row in plain if len(row) == 2 or any(row[2:])]
    widths = [max(len(row[i]) for row in figures) for i in range(len(plain[0]))]
    widths[0] = max(len(row[0]) for row in plain)
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in plain
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(line.rstrip() for line in lines)


def terminal(record: dict[str, Any]) -> str:
    settings = record["settings"]
    parts = [f"{settings['model']}-dysample and {settings['model']}: {conditions(record)}"]
    if "model" in record:
        parts += [
            f"One call of the model, {settings['imgsz']} px, batch {settings['batch']}",
            aligned(runtimes_table(record)),
        ]
        parts += [
            f"{PRINTED.get(name, name)}, {candidate}: {found['failed']}" for name, candidate, found in failures(record)
        ]
    if "model" in record or "train" in record:
        parts += [aligned(costs_table(record))]
    if "operator" in record and "shapes" in record["operator"]:
        for memory_format in ("channels_last", "contiguous"):
            parts += [f"Operators, {memory_format}", aligned(operators_table(record, memory_format))]
        parts += ["Operators, channels_last, by size", aligned(sweep_table(record)), *operator_sentences(record)]
    return "\n\n".join(parts)


def failures(record: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    return [
        (name, candidate, found)
        for name, runtime in record["model"]["runtimes"].items()
        for candidate, found in runtime.get("candidates", {}).items()
        if "failed" in found
    ]


def section(record: dict[str, Any], picture: str = "results/speed.png", file: str = "results/speed.json") -> str:
    """The README's section, between its markers."""
    settings = record["settings"]
    steps = f"batch {settings['train_batch']} at {settings['train_imgsz']} px"
    parts = [
        f"`{settings['model']}` at {settings['imgsz']} px, batch {settings['batch']}: medians. All candidates run in "
        f"turn in one process; each round gives one ratio, shown as the median [quartiles] of {settings['rounds']} "
        f"rounds. Offsets have a standard deviation of {settings['offset_spread']} pixels.",
        markdown(runtimes_table(record)),
        f"![DySample and the published code beside stock in every runtime; upsamplers by size]({picture})",
        f"GMACs include the sampling, at 4 an output number; attention's products are not counted. Memory is that of a "
        f"whole process ({settings['memory_runs']} fresh ones each). The training step is forward, loss and backward, "
        f"{steps}.",
        markdown(costs_table(record)),
        "The operator beside its peers, in PyTorch, channels_last. Parameters and GMACs are those at the last shape, "
        "the paper's. CARAFE is in plain PyTorch, not its CUDA kernel.",
        markdown(operators_table(record, "channels_last")),
        " ".join(operator_sentences(record)),
        f"`{record['command']}` ([record]({file}), {record['seconds'] / 60:.0f} minutes): {conditions(record)}",
    ]
    return "\n".join([BEGIN, "\n\n".join(parts), END])


def with_section(readme: str, record: dict[str, Any]) -> str:
    return between(readme, BEGIN, END, section(record))


def between(readme: str, begin: str, end: str, text: str) -> str:
    """The README with a text, that has the markers at its ends, in place of what was between them."""
    if readme.count(begin) != 1 or readme.count(end) != 1:
        raise SystemExit(f"the README must have one {begin} and one {end}; write them where the section belongs")
    before, rest = readme.split(begin)
    return before + text + rest.split(end)[1]


def plot(record: dict[str, Any], file: Path) -> None:
    """Ratios to stock by runtime, and the upsamplers by size; only what the record has."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        draw
        for part, draw in (("model", draw_runtimes), ("operator", draw_sweep))
        if part in record and "failed" not in record[part]
    ]
    if not panels:
        return
    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(1, len(panels), figsize=(6.2 * len(panels), 5), squeeze=False)
        for draw, axis in zip(panels, axes[0], strict=True):
            draw(record, axis)
        figure.tight_layout(w_pad=3)
        figure.savefig(file, dpi=150)
        pyplot.close(figure)


INK, GREEN, ORANGE, GREY = "#263238", "#00897b", "#ef6c00", "#90a4ae"


def draw_runtimes(record: dict[str, Any], axis: Any) -> None:
    runtimes = {k: v["candidates"] for k, v in record["model"]["runtimes"].items() if "candidates" in v}
    kinds = ((OURS, GREEN, "o", -0.16, "this package"), (PUBLISHED, ORANGE, "D", 0.16, "published code"))
    for row, candidates in enumerate(runtimes.values()):
        for kind, colour, marker, shift, _ in kinds:
            found = candidates.get(kind, {})
            note = ""
            if kind == PUBLISHED and "failed" in found and "ratio" in candidates.get(ADAPTED, {}):
                found, note = candidates[ADAPTED], " made to run; as it is, it fails"
            if "ratio" not in found:
                continue
            low, middle, high = (found["ratio"][key] for key in ("q1", "median", "q3"))
            face = "white" if note else colour
            axis.errorbar(
                middle,
                row + shift,
                xerr=[[middle - low], [high - middle]],
                fmt=marker,
                color=colour,
                mfc=face,
                capsize=3,
                ms=7,
            )
            axis.annotate(
                f"{middle:.2f}{note}",
                (high, row + shift),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=colour,
            )
    axis.axvline(1, color=INK, lw=1, ls=(0, (4, 3)), zorder=0)
    for _, colour, marker, _, label in kinds:
        axis.plot([], [], marker, color=colour, label=label)
    axis.set_yticks(range(len(runtimes)), [PRINTED.get(name, name).replace("`", "") for name in runtimes])
    axis.set_ylim(len(runtimes) + 0.2, -0.5)  # with room for the legend
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 0.95), max(high, 1.1) * 1.25)
    ticks = [t for t in (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6) if axis.get_xlim()[0] <= t <= axis.get_xlim()[1]]
    axis.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="x", color="#eceff1")
    axis.set_axisbelow(True)
    axis.legend(loc="lower center", ncols=2, frameon=False)
    settings = record["settings"]
    axis.set_title(f"{settings['model']}, {settings['imgsz']} px: time over stock", fontweight="bold")
    axis.set_xlabel("ratio to nn.Upsample's model, median and quartiles (log)")


SWEPT = {
    "nearest": (GREY, "-", "nearest"),
    "bilinear": (GREY, "--", "bilinear"),
    "deconvolution": ("#8e24aa", "-", "deconvolution"),
    "pixel shuffle": ("#c2185b", "-", "pixel shuffle"),
    "carafe": ("#1e88e5", "-", "CARAFE"),
    ADAPTED: (ORANGE, "-", "published DySample"),
    OURS: (GREEN, "-", "DySample"),
}


def draw_sweep(record: dict[str, Any], axis: Any) -> None:
    entries = record["operator"]["sweep"]
    sizes = [entry["shape"][-1] for entry in entries]
    ends = []
    for name, (colour, dash, label) in SWEPT.items():
        found = [entry["candidates"].get(name, {}).get("ms") for entry in entries]
        if not all(found):
            continue
        axis.plot(
            sizes, [f["median"] for f in found], dash, color=colour, marker="o", ms=4, lw=2.6 if name == OURS else 1.6
        )
        axis.fill_between(sizes, [f["q1"] for f in found], [f["q3"] for f in found], color=colour, alpha=0.15, lw=0)
        ends.append([found[-1]["median"], label, colour])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    low, high = axis.get_ylim()
    places = spaced([value for value, *_ in sorted(ends)], (high / low) ** 0.052, high)
    for place, (_, label, colour) in zip(places, sorted(ends), strict=True):
        axis.annotate(
            label,
            (sizes[-1], place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=colour,
            fontweight="bold" if colour == GREEN else "normal",
            annotation_clip=False,
        )
    axis.grid(color="#eceff1")
    axis.set_axisbelow(True)
    channels = entries[0]["shape"][1]
    axis.set_title(f"One x2 upsampling of {channels} channels", fontweight="bold")
    axis.set_xlabel("height and width of the input, channels_last (log)")
    axis.set_ylabel("ms (log)")


def spaced(values: list[float], factor: float, limit: float) -> list[float]:
    """Where labels of ascending values stand, each a factor above the one before and none above a limit."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] * factor) if places else value)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] / factor
    return places


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "record", type=Path, nargs="?", default=Path("results/speed.json"), help="(default: %(default)s)"
    )
    parser.add_argument("--readme", type=Path, help="write the section into this README, between its markers")
    options = parser.parse_args()
    record = json.loads(options.record.read_text())
    plot(record, options.record.with_suffix(".png"))
    if options.readme:
        options.readme.write_text(with_section(options.readme.read_text(), record))
    print(terminal(record))
    print(f"\n{options.record}, {options.record.with_suffix('.png')}")


if __name__ == "__main__":
    main()
