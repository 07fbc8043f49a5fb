"""Compares DySample with stock upsampling on a data set: one model trained with each, over several seeds, in pairs.

Runs of one seed start from the same weights in every layer that they share and see the same images in the same order;
both are checked, and a run that would differ stops. A finished run is never repeated, and never changed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import difflib
import functools
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import torch
import yaml
from torch import Tensor, nn

from yolov10_dysample.convert import UPSAMPLE, convert_rows
from yolov10_dysample.dysample import INITS, VARIANTS, DySample
from yolov10_dysample.offsets import offset_statistics

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from scripts.benchmark import Parser, Progress, quartiles, ratio, surroundings, take_turns, whole  # noqa: E402

NEAREST, BILINEAR = "nearest", "bilinear"
STOCK = (NEAREST, BILINEAR)
#: What is the comparison's own to decide, and not a setting of its runs.
RESERVED = (
    *("model", "data", "seed", "device", "project", "name", "exist_ok", "resume", "pretrained", "mode", "task"),
    *("deterministic", "save", "val", "plots", "verbose", "save_json", "cfg", "fraction", "time", "patience"),
)
#: Settings of Ultralytics that a comparison starts from.
DEFAULTS = {"epochs": 100, "imgsz": 640, "batch": 16}
#: Images of the val split that the learnt offsets are looked at on.
OFFSET_IMAGES = 64
SIZES = ("small", "medium", "large")
MAP, MAP50 = "mAP50-95", "mAP50"
#: Timed rounds of the latency of each arm.
COST_ROUNDS = 30


class Arm(NamedTuple):
    """One way to upsample: ``nearest``, ``bilinear`` or a variant of DySample, with settings of its own."""

    name: str
    kind: str
    layer: dict[str, Any]
    rows: list[int] | None
    range_factor: float | None

    @property
    def file(self) -> str:
        return self.name.replace("+", "plus").replace(":", ",")


def arm(text: str) -> Arm:
    """``dysample+`` or ``dysample:init=nearest:groups=8``, as an argparse type."""
    kind, *options = text.split(":")
    kinds = (*STOCK, *VARIANTS)
    if kind not in kinds:
        raise argparse.ArgumentTypeError(f"an arm must be one of {', '.join(kinds)}, got {kind!r}")
    layer, rows, range_factor = dict(VARIANTS.get(kind, {})), None, None
    for option in options:
        key, _, value = option.partition("=")
        try:
            if kind in STOCK:
                raise ValueError
            if key == "init":
                layer["init"] = INITS[INITS.index(value)]
            elif key == "groups":
                layer["groups"] = int(value)
            elif key == "rows":
                rows = [int(row) for row in value.split("+")]
            elif key == "range":
                range_factor = float(value)
            else:
                raise ValueError
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"an arm of DySample may have :init={'|'.join(INITS)}, :groups=N, :rows=11+14 or :range=0.25, "
                f"got {option!r} in {text!r}"
            ) from None
    return Arm(text, kind, layer, rows, range_factor)


def arms(text: str) -> list[Arm]:
    return [arm(part) for part in dict.fromkeys(text.split(","))]


def upsampling_rows(model: dict[str, Any]) -> list[int]:
    return [i for i, row in enumerate([*model["backbone"], *model["head"]]) if row[2] == UPSAMPLE]


def with_arm(model: dict[str, Any], wanted: Arm) -> dict[str, Any]:
    """The parsed YAML of a stock model with an arm's upsampling in it."""
    if wanted.kind not in STOCK:
        return convert_rows(model, rows=wanted.rows, **wanted.layer)[0]
    rows = upsampling_rows(model)
    if not rows:
        raise ValueError(f"{model.get('yaml_file', 'the model')} has no {UPSAMPLE} row to compare upsampling in")
    changed = [list(row) for row in (*model["backbone"], *model["head"])]
    for i in rows:
        changed[i][3] = [*changed[i][3][:2], wanted.kind]
    split = len(model["backbone"])
    return {**model, "backbone": changed[:split], "head": changed[split:]}


class Run(NamedTuple):
    """All that one run is told: what a child process gets on its command line."""

    arm: str
    seed: int
    model: str
    warm_start: bool
    data: str
    settings: dict[str, Any]
    device: str
    threads: int
    out: str

    @property
    def name(self) -> str:
        return f"{arm(self.arm).file}-seed{self.seed}"

    @property
    def record(self) -> Path:
        return Path(self.out) / "records" / f"{self.name}.json"

    @property
    def work(self) -> Path:
        return Path(self.out) / "unfinished" / self.name

    @property
    def weights(self) -> Path:
        return Path(self.out) / "weights" / f"{self.name}.pt"


# One run, in a process of its own.


def train(run: Run) -> None:
    """Train one arm with one seed, measure what came of it, and write its record."""
    from ultralytics import YOLO

    torch.set_num_threads(run.threads)  # Ultralytics set its own number when it was imported
    start = time.monotonic()
    wanted = arm(run.arm)
    shutil.rmtree(run.work, ignore_errors=True)  # what a killed run left
    model: Any = YOLO(run.model)
    history: dict[str, Any] = {"epochs": []}
    model.train(
        trainer=trainer_of(model, run, wanted, history),
        data=run.data,
        seed=run.seed,
        device=run.device,
        project=str(run.work.parent.resolve()),
        name=run.work.name,
        pretrained=run.warm_start,
        deterministic=True,
        plots=False,
        patience=0,
        **run.settings,
    )
    trained: Any = YOLO(run.work / "weights" / "last.pt")
    truth, numbers, files = ground_truth(run.data)
    record = {
        "arm": run.arm,
        "seed": run.seed,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        **history,
        "sizes": by_size(trained, run, truth, numbers),
        "offsets": learnt_offsets(trained, run, files[:OFFSET_IMAGES]),
        "seconds": round(time.monotonic() - start),
        **surroundings(),
    }
    run.weights.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(run.work / "weights" / "last.pt", run.weights)
    write(run.record, record)
    shutil.rmtree(run.work)


def trainer_of(model: Any, run: Run, wanted: Arm, history: dict[str, Any]) -> type:
    """The host's own trainer, which also notes what it starts from, what it sees and how far it came."""
    rows = with_arm(model.model.yaml, wanted)
    order = hashlib.sha256()

    class Trainer(model._smart_load("trainer")):  # type: ignore[misc]
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            network = super().get_model(cfg=rows, weights=weights, verbose=verbose)
            if wanted.range_factor is not None:
                for layer in dysample_layers(network).values():
                    layer.range_factor = wanted.range_factor
            history["start"] = same_as_its_pair(run, "weights", shared_weights(network))
            return network

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            order.update("".join(batch["im_file"]).encode())
            order.update(batch["img"][:, :, ::8, ::8].cpu().numpy().tobytes())
            return super().preprocess_batch(batch)

    def before(trainer: Any) -> None:
        if run.warm_start:
            # As `yolo val` does it, of a copy, which is fused: the trainer's own validator wants a loss to go on from.
            history["before"] = figures(trainer.get_validator()(model=copy.deepcopy(trainer.ema.ema)))

    def after_epoch(trainer: Any) -> None:
        done = trainer.epoch + 1
        if len(history["epochs"]) < done <= trainer.epochs:  # called once more at the end, with the best weights
            history["epochs"].append(figures(trainer.metrics))
            history["data"] = same_as_its_pair(run, f"epoch{done}", order.hexdigest())
            best = history["epochs"][-1][MAP]
            print(f"@ {done} {trainer.epochs} {best:.3f}", flush=True)

    model.add_callback("on_train_start", before)
    model.add_callback("on_fit_epoch_end", after_epoch)
    return Trainer


def figures(metrics: dict[str, Any]) -> dict[str, float]:
    found = {name: metrics[f"metrics/{name}(B)"] for name in (MAP, MAP50)}
    losses = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
    return {**found, **losses}


def dysample_layers(network: Any) -> dict[int, DySample]:
    return {i: layer for i, layer in enumerate(network.model) if isinstance(layer, DySample)}


def shared_weights(network: Any) -> str:
    """A digest of every weight but DySample's own."""
    own = tuple(f"model.{i}." for i in dysample_layers(network))
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not name.startswith(own):
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def same_as_its_pair(run: Run, what: str, digest: str) -> str:
    """Stop unless the first run of this seed noted the same."""
    note = Path(run.out) / "pairs" / f"seed{run.seed}-{what}"
    note.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), note.open("x") as file:
        file.write(f"{digest} {run.arm}")
    first, _, whose = note.read_text().partition(" ")
    if first != digest:
        raise RuntimeError(
            f"seed {run.seed}: {what} of {run.arm} is not that of {whose}, so that they cannot be compared in pairs; "
            f"if the model or the data changed since, write to another folder than {run.out}"
        )
    return digest[:16]


def by_size(model: Any, run: Run, truth: dict[str, Any], numbers: dict[str, int]) -> dict[str, Any]:
    """COCO's average precision for the data's own small, medium and large objects: a third of the boxes each."""
    from faster_coco_eval import COCO, COCOeval_faster

    found: list[dict[str, Any]] = []
    model.add_callback("on_val_end", lambda validator: found.extend(validator.jdict))
    settings = {name: run.settings[name] for name in ("imgsz", "batch", "workers") if name in run.settings}
    with tempfile.TemporaryDirectory() as folder:
        model.val(
            data=run.data, device=run.device, save_json=True, project=folder, plots=False, verbose=False, **settings
        )
    coco = COCO(truth)
    boxes = [{**box, "image_id": numbers[str(box["image_id"])]} for box in found]
    evaluation = COCOeval_faster(coco, coco.loadRes(boxes), "bbox", print_function=lambda *_: None)
    areas = np.array([box["area"] for box in truth["annotations"]])
    low, high = np.quantile(areas, (1 / 3, 2 / 3))
    evaluation.params.areaRng = [[0, 1e10], [0, low], [low, high], [high, 1e10]]
    evaluation.params.areaRngLbl = ["all", *SIZES]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., -1]  # IoU, recall, class, size
    means = {name: precision[..., i][precision[..., i] > -1].mean().item() for i, name in enumerate(("all", *SIZES))}
    return {
        "limits_px": [round(float(limit) ** 0.5, 2) for limit in (low, high)],
        **{name: round(mean, 5) for name, mean in means.items()},
    }


def ground_truth(data: str) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """The val split as COCO writes it, the number of each image by its file's stem, and the files."""
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    described = check_det_dataset(data)
    labels = YOLODataset(img_path=described["val"], data=described, task="detect", augment=False).labels
    numbers: dict[str, int] = {}
    boxes: list[dict[str, Any]] = []
    for number, label in enumerate(labels, start=1):
        stem = Path(label["im_file"]).stem
        numbers[str(int(stem)) if stem.isnumeric() else stem] = number  # as Ultralytics names it in its predictions
        height, width = label["shape"]
        for kind, (x, y, w, h) in zip(
            label["cls"].ravel(), label["bboxes"] * [width, height, width, height], strict=True
        ):
            box = {"bbox": [x - w / 2, y - h / 2, w, h], "area": w * h, "category_id": int(kind) + 1, "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "image_id": number, **box})
    truth = {
        "images": [{"id": number} for number in numbers.values()],
        "annotations": boxes,
        "categories": [{"id": kind + 1} for kind in described["names"]],
    }
    return truth, numbers, [label["im_file"] for label in labels]


def learnt_offsets(model: Any, run: Run, files: list[str]) -> dict[str, dict[str, float]]:
    """How far each DySample layer moves its samples, in pixels of its input."""
    seen: dict[int, list[Tensor]] = collections.defaultdict(list)

    def note(i: int, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[i].append(dysample_layers(model.model)[i].predict_offset(inputs[0]).float().cpu())

    hooks = [
        layer.register_forward_pre_hook(functools.partial(note, i)) for i, layer in dysample_layers(model.model).items()
    ]
    if not hooks:
        return {}
    options = {"imgsz": run.settings["imgsz"], "rect": False, "device": run.device, "verbose": False, "batch": 1}
    collections.deque(model.predict(files, stream=True, save=False, **options), maxlen=0)
    return {str(i): offset_statistics(torch.cat(offsets), 2) for i, offsets in seen.items()}


def write(file: Path, content: dict[str, Any]) -> None:
    """All of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    part.replace(file)


# All runs of a comparison.


class Comparison(NamedTuple):
    """What a folder of records is about; runs that differ in any of it belong in another folder."""

    model: str
    data: str
    settings: dict[str, Any]
    warm_start: str | None


def agree(out: Path, wanted: Comparison) -> None:
    """Write down what this folder is about, or stop if it is about something else."""
    file = out / "comparison.json"
    now = json.loads(json.dumps(wanted._asdict()))
    if not file.is_file():
        write(file, now)
        return
    before = json.loads(file.read_text())
    changed = [f"{key} was {before.get(key)!r}, now {now[key]!r}" for key in now if before.get(key) != now[key]]
    if changed:
        raise ValueError(f"{out} holds runs with other settings ({'; '.join(changed)}): name another --out")


def train_all(runs: list[Run], devices: list[str], workers: int, progress: Progress) -> list[Run]:
    """Train what has no record yet, some at a time; returns the runs that failed."""
    waiting = collections.deque(run for run in runs if not run.record.is_file())
    progress(f"{len(runs)} runs, {len(runs) - len(waiting)} of them finished before; {workers} at a time")
    total, failed, seconds = len(waiting), [], []
    busy: dict[int, tuple[Run, subprocess.Popen, Path, float]] = {}
    try:
        while waiting or busy:
            for place in range(workers):
                if place not in busy and waiting:
                    run = waiting.popleft()._replace(device=devices[place % len(devices)])
                    busy[place] = (run, *start(run), time.monotonic())
            time.sleep(0.5)
            for place, (run, process, log, began) in list(busy.items()):
                if process.poll() is None:
                    continue
                del busy[place]
                if process.returncode:
                    failed.append(run)
                    print(f"{run.name} failed; the end of {log}:\n{tail(log)}", file=sys.stderr)
                    continue
                seconds.append(time.monotonic() - began)
                left = statistics.mean(seconds) * (len(waiting) + len(busy)) / workers
                result = json.loads(run.record.read_text())["epochs"][-1][MAP]
                done = total - len(waiting) - len(busy)
                progress(f"{run.name}: {MAP} {result:.3f}; {done} of {total}, about {left / 60:.0f} min left")
            show(busy)
    finally:
        for _, process, *_ in busy.values():
            process.terminate()
    return failed


def start(run: Run) -> tuple[subprocess.Popen, Path]:
    log = Path(run.out) / "logs" / f"{run.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--child", json.dumps(run._asdict())]
    with log.open("w") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL), log


def tail(log: Path, lines: int = 8) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-lines:])


def show(busy: dict[int, tuple[Run, subprocess.Popen, Path, float]]) -> None:
    """On a terminal, how far the runs are."""
    if sys.stderr.isatty():
        told = []
        for run, _, log, _ in busy.values():
            epochs = [line.split()[1:] for line in tail(log, 40).splitlines() if line.startswith("  @ ")]
            told.append(f"{run.name} {'{}/{}, {}'.format(*epochs[-1][1:]) if epochs else 'starting'}")
        print(f"\r\033[K{' | '.join(told)}"[: shutil.get_terminal_size().columns], end="", file=sys.stderr, flush=True)


@torch.inference_mode()
def measure_cost(weights: dict[str, Path], imgsz: int, device: str, progress: Progress) -> dict[str, Any]:
    """Milliseconds of every arm's trained model, one image at a time, in turn; the ratios are to the first arm's."""
    from ultralytics import YOLO

    place = torch.device(device if device == "cpu" else f"cuda:{device}")
    image = torch.rand(1, 3, imgsz, imgsz).to(place, memory_format=torch.channels_last)
    calls = {}
    for name, file in weights.items():
        model: Any = YOLO(file).model
        model = model.eval().fuse(verbose=False).float().to(place, memory_format=torch.channels_last)
        calls[name] = functools.partial(model, image)
    times = take_turns(calls, COST_ROUNDS, place, functools.partial(progress, "latency: timing"))
    base = next(iter(times.values()))
    found = {name: {"ms": quartiles(own), "ratio": ratio(own, base)} for name, own in times.items()}
    return {"arms": found, "imgsz": imgsz, "rounds": COST_ROUNDS, "threads": torch.get_num_threads(), **surroundings()}


def setting(text: str) -> tuple[str, Any]:
    """``epochs=50``, as an argparse type."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"a training setting is written key=value, as for yolo, got {text!r}")
    if key in RESERVED:
        raise argparse.ArgumentTypeError(f"{key} is set by the comparison, or an option of it, got {text!r}")
    from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

    if key not in DEFAULT_CFG_DICT:
        near = difflib.get_close_matches(key, DEFAULT_CFG_DICT, n=1)
        hint = f"; {near[0]}?" if near else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no training setting of Ultralytics{hint}")
    try:
        parsed = yaml.safe_load(value)
        get_cfg(overrides={key: parsed})
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise argparse.ArgumentTypeError(f"{text!r} is no training setting of Ultralytics: {reason}") from None
    return key, parsed


def seeds(text: str) -> list[int]:
    """``0-4`` or ``0,3,7``, as an argparse type."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
            raise argparse.ArgumentTypeError(
                f"seeds must be whole numbers or ranges, such as 0-4 or 0,3,7, got {text!r}"
            )
        found += range(int(first), int(last or first) + 1)
    return list(dict.fromkeys(found))


def devices(text: str) -> list[str]:
    gpus = torch.cuda.device_count()
    for part in text.split(","):
        if part != "cpu" and not (part.isdecimal() and int(part) < gpus):
            raise argparse.ArgumentTypeError(
                f"must be cpu, or indices of this machine's {gpus} GPUs (0,1: runs take turns on them), got {text!r}"
            )
    return text.split(",")


def parser() -> Parser:
    made = Parser(
        prog="compare.py",
        description="Train a model with stock upsampling and with DySample, in pairs, over several seeds, and report "
        "the differences. Stop it at any time: the same command goes on where it was.",
        epilog="example: python scripts/compare.py --data coco8.yaml --seeds 0-4 epochs=100 imgsz=640",
    )
    made.add_argument("--data", required=True, help="data set YAML, as for yolo train")
    made.add_argument("--model", default="yolov10n.yaml", help="stock model YAML (default: yolov10n.yaml)")
    made.add_argument(
        "--warm-start", metavar="WEIGHTS", help="start from these weights of the stock model, e.g. yolov10n.pt"
    )
    made.add_argument(
        "--arms",
        type=arms,
        default=[arm(name) for name in (NEAREST, BILINEAR, "dysample")],
        help=f"some of {','.join((*STOCK, *VARIANTS))}; a variant of DySample may have :init=nearest, :groups=8, "
        f":rows=14 and :range=0.5 after its name (default: nearest,bilinear,dysample)",
    )
    made.add_argument("--seeds", type=seeds, default=list(range(5)), help="such as 0-4 or 0,3,7 (default: 0-4)")
    made.add_argument("--device", type=devices, default=["cpu"], help="cpu, or GPUs that runs take turns on: 0,1")
    made.add_argument("--workers", type=whole(1), help="runs at a time (default: one a GPU, or one a core)")
    made.add_argument(
        "--out", type=Path, default=Path("results/compare"), help="folder of records (default: %(default)s)"
    )
    made.add_argument(
        "settings", nargs="*", type=setting, metavar="key=value", help="training settings, as for yolo train"
    )
    return made


def main(arguments: list[str]) -> int:
    made = parser()
    options = made.parse_args(arguments)
    workers = options.workers or (len(options.device) if options.device != ["cpu"] else os.cpu_count() or 1)
    settings = {**DEFAULTS, **({"workers": 0} if options.device == ["cpu"] else {}), **dict(options.settings)}
    warm = options.warm_start
    try:
        if warm and not Path(warm).is_file():
            raise ValueError(f"--warm-start must be a weights file, got {warm!r}")
        check(warm or options.model, options.data, options.arms)
        start_from = hashlib.sha256(Path(warm).read_bytes()).hexdigest()[:16] if warm else None
        agree(options.out, Comparison(options.model, options.data, settings, start_from))
    except (ValueError, OSError) as error:
        made.error(str(error))
    common = {"model": warm or options.model, "warm_start": bool(warm), "data": options.data, "settings": settings}
    threads = max(1, (os.cpu_count() or 1) // workers)
    runs = [
        Run(arm=each.name, seed=seed, device=options.device[0], threads=threads, out=str(options.out), **common)
        for seed in options.seeds
        for each in options.arms
    ]
    progress = Progress(sys.stderr)
    failed = train_all(runs, options.device, workers, progress)
    if failed:
        print(f"{len(failed)} runs failed; the same command tries them again", file=sys.stderr)
        return 1
    names = sorted((each.name for each in options.arms), key=lambda name: name != NEAREST)  # ratios are to the first
    cost = options.out / "cost.json"
    weights = {run.arm: run.weights for run in runs if run.weights.is_file()}
    if not cost.is_file() or not set(names) <= set(json.loads(cost.read_text())["arms"]):
        if set(names) <= set(weights):
            models = {name: weights[name] for name in names}
            write(cost, measure_cost(models, settings["imgsz"], options.device[0], progress))
        else:
            print(f"latency not measured: not all weights are in {options.out / 'weights'}", file=sys.stderr)
    return subprocess.run([sys.executable, str(ROOT / "scripts/compare_report.py"), str(options.out)]).returncode


def check(model: str, data: str, wanted: list[Arm]) -> None:
    """Build what every arm would train and find the data, before anything is written."""
    from ultralytics import YOLO
    from ultralytics.data.utils import check_det_dataset

    from yolov10_dysample import registration

    try:
        stock: Any = YOLO(model)
        rows = upsampling_rows(stock.model.yaml)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--model must be a model YAML that upsamples, got {model!r}: {reason}") from None
    if stock.task != "detect" or not rows:
        raise ValueError(f"--model must be a detection model that upsamples, got {model!r}")
    for each in wanted:
        try:
            registration.build_on_meta(with_arm(stock.model.yaml, each))
        except ValueError as error:
            raise ValueError(f"{each.name}: {error}") from None
    try:
        check_det_dataset(data)
    except Exception as error:
        raise ValueError(
            f"--data must be a detection data set YAML, got {data!r}: {' '.join(str(error).split())}"
        ) from None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run = Run(**json.loads(sys.argv[2]))
        run.work.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{run.work}.lock"):  # the children of a killed comparison live on
            if not run.record.is_file():
                train(run)
    else:
        try:
            sys.exit(main(sys.argv[1:]))
        except KeyboardInterrupt:
            sys.exit("\nstopped; the same command goes on from here")
