"""The command ``yolov10-dysample``: looks after an installation (``doctor``), rewrites model YAMLs (``convert``), and
draws what DySample does in a trained model (``plot``).

``doctor`` must work where torch, Ultralytics or half of this package is broken: it imports none of them, but looks at
what a fresh Python process, the way ``yolo`` is one, makes of them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from yolov10_dysample.files import write_whole
from yolov10_dysample.version import __version__

NAME = "yolov10-dysample"

#: Runtimes of exported models, and what `yolo export` needs to make them: (format, distributions).
RUNTIMES = (
    ("ONNX", ("onnx", "onnxslim", "onnxruntime", "onnxruntime-gpu")),
    ("OpenVINO", ("openvino",)),
    ("TensorRT", ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")),
    ("CoreML", ("coremltools",)),
    ("ncnn", ("ncnn", "pnnx")),
    ("MNN", ("MNN",)),
    ("TensorFlow, TFLite", ("tensorflow", "onnx2tf", "ai-edge-litert", "litert-torch")),
    ("Paddle", ("paddlepaddle", "paddlepaddle-gpu", "x2paddle")),
    ("ExecuTorch", ("executorch",)),
    ("RKNN", ("rknn-toolkit2",)),
)

SWITCHES = ("YOLOV10_DYSAMPLE_AUTOLOAD", "TORCH_DEVICE_BACKEND_AUTOLOAD")
ENTRY_POINT = "_yolov10_dysample_autoload:autoload"

# Run with `python -c`. Like the `yolo` script it has no current folder on its path, and it imports Ultralytics before
# this package. The last line it prints is what it found.
PROBE = """
import json, sys
sys.path[:] = [entry for entry in sys.path if entry]
found = {}
def attempt(name, step):
    try:
        found[name] = step()
    except BaseException as error:
        found["errors"] = {**found.get("errors", {}), name: " ".join(f"{type(error).__name__}: {error}".split())}
def load(name):
    module = __import__(name)
    return [getattr(module, "__version__", "of unknown version"), getattr(module, "__file__", None) or "no file"]
def itself():
    import ultralytics.nn.tasks as tasks
    return getattr(getattr(tasks, "DySample", None), "__module__", None)
def asked():
    import yolov10_dysample
    return yolov10_dysample.register()
def configs():
    from yolov10_dysample.model_files import config_dir
    return [str(config_dir()), len(list(config_dir().glob("*-dysample.yaml")))]
for name, step in (
    ("torch", lambda: load("torch")),
    ("ultralytics", lambda: load("ultralytics")),
    ("itself", itself),
    ("asked", asked),
    ("configs", configs),
):
    attempt(name, step)
print()
print(json.dumps(found))
"""

EPILOG = """
examples:
  yolov10-dysample doctor                          is everything in place? if not, what to do
  yolov10-dysample convert mine.yaml               your model with DySample, on the screen
  yolov10-dysample convert mine.yaml -o mine-dysample.yaml
  yolo detect train model=mine-dysample.yaml data=coco8.yaml
  yolov10-dysample plot weights=best.pt source=image.jpg   what DySample does in a trained model, as pictures

Stock models need no conversion: their name with -dysample works in every yolo command, from any folder:
  yolo detect train model=yolov10n-dysample.yaml data=coco8.yaml
  yolo segment train model=yolo11s-seg-dysample.yaml data=coco8-seg.yaml
"""

CONVERT = """
Replace the nn.Upsample rows of an Ultralytics model YAML by DySample rows. Comments, layout and the index of every row
stay, so pretrained weights still fit all other layers.
"""

CONVERT_EPILOG = """
examples:
  yolov10-dysample convert mine.yaml -o mine-dysample.yaml
  yolov10-dysample convert yolo11.yaml -o yolo11-dysample.yaml   a stock model; yolo11n- to yolo11x-dysample.yaml now
                                                                 mean this file, in its folder
  yolov10-dysample convert mine.yaml --rows 14                   one of two layers
  yolov10-dysample convert mine.yaml --style pl --groups 8       the paper's DySample-S
  yolov10-dysample convert mine.yaml --init nearest              start as nn.Upsample, for weights trained with that

The exit status is 0, or 2 if nothing was written; the reason is then one line on stderr.
"""

DOCTOR = """
Print the versions, where Ultralytics is imported from, whether a fresh Python process knows DySample without being
told, and which export runtimes are installed.
"""

DOCTOR_EPILOG = "The exit status is 0 if `yolo` commands find DySample here, else 1; what to do about it is printed."


PLOT = """
Draw what the DySample layers of a trained model do to an image. For each of them offsets-layer11.png, by its index:
where the sub-pixels of each cell sample, how far and in which direction they are moved over the image, and how far in
each group of channels. predictions.png has what the model finds, beside what another one does.
"""

PLOT_EPILOG = """
keys, as in yolo commands:
  weights=best.pt    the model: a .pt file with DySample layers
  source=image.jpg   one image of any size
  other=stock.pt     a model to compare the predictions with, with or without DySample
  imgsz=640          size the image is fitted into before the network sees it
  conf=0.25          confidence from which predictions are drawn
  out=pictures       the folder to write to, where files of the same names are replaced; default: the next free one of
                     runs/dysample/plot, runs/dysample/plot2, ...

examples:
  yolov10-dysample plot weights=runs/detect/train/weights/best.pt source=image.jpg
  yolov10-dysample plot weights=best.pt source=image.jpg other=yolov10n.pt conf=0.5 out=pictures

It prints the files, and for each layer, in pixels of its input: the mean length of the offsets, their 99th percentile,
the largest, and their spread (standard deviation over the image: 0 if all cells are moved alike).

The exit status is 0, or 2 if nothing was written; the reason is then one line on stderr.
"""

#: Where `plot` writes by default, with a number if that is there already.
FOLDER = Path("runs/dysample/plot")
PLOT_KEYS = ("weights", "source", "other", "imgsz", "conf", "out")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status.

    Example:
        >>> main(["convert", "yolov10n.yaml", "--rows", "12"])
        2
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(prog=NAME, description="DySample upsampling for Ultralytics models.", epilog=EPILOG, **layout)
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="doctor | convert | plot")

    doctor = commands.add_parser(
        "doctor", help="check this installation", description=DOCTOR, epilog=DOCTOR_EPILOG, **layout
    )
    doctor.set_defaults(run=_doctor)

    convert = commands.add_parser(
        "convert", help="put DySample into a model YAML", description=CONVERT, epilog=CONVERT_EPILOG, **layout
    )
    convert.add_argument("model", metavar="MODEL.yaml", help="a file, or the bare name of a stock Ultralytics model")
    convert.add_argument("-o", "--out", metavar="OUT", type=Path, help="the file to write; default: the screen")
    convert.add_argument("--force", action="store_true", help="write OUT even if it exists")
    convert.add_argument(
        "--rows", nargs="+", type=int, metavar="ROW", help="indices of the rows to replace; default: all nn.Upsample"
    )
    convert.add_argument(
        "--style", default="lp", help="lp: offsets predicted at the input's resolution (default); pl: at the output's"
    )
    convert.add_argument(
        "--groups", type=int, default=4, help="groups of channels with offsets of their own; default 4"
    )
    convert.add_argument("--dyscope", action="store_true", help="predict the range of the offsets too")
    convert.add_argument(
        "--init", default="bilinear", help="bilinear: start as published (default); nearest: start as nn.Upsample"
    )
    convert.set_defaults(run=_convert)

    plot = commands.add_parser(
        "plot", help="draw what DySample does in a trained model", description=PLOT, epilog=PLOT_EPILOG, **layout
    )
    plot.add_argument(
        "settings", nargs="*", metavar="key=value", help="weights=best.pt source=image.jpg and more, below"
    )
    plot.set_defaults(run=_plot)
    return parser


def _convert(options: argparse.Namespace) -> int:
    try:
        text, notes = _converted_text(options)
        if options.out is None:
            sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()
        else:
            _write(options.out, text, options.force)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, ValueError) as error:
        print(f"{NAME} convert: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"{NAME} convert: note: {note}", file=sys.stderr)
    return 0


def _converted_text(options: argparse.Namespace) -> tuple[str, list[str]]:
    """The new YAML, and what its reader should know about it."""
    from yolov10_dysample.convert import convert_yaml

    file = _source(options.model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            text = convert_yaml(
                file.read_bytes().decode(),
                rows=options.rows,
                style=options.style,
                groups=options.groups,
                dyscope=options.dyscope,
                init=options.init,
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    return text, [*notes, *_size_notes(options, file), *_build_notes(text, str(file))]


def _source(name: str) -> Path:
    file = Path(name)
    if file.is_file():
        return file
    if file.exists():
        raise ValueError(f"{name} is not a file")
    from yolov10_dysample.model_files import find_stock

    stock = find_stock(name)
    if stock is None:
        raise ValueError(f"{name} is neither a file nor the name of a stock Ultralytics model, such as yolo11n.yaml")
    return stock


def _size_notes(options: argparse.Namespace, file: Path) -> list[str]:
    asked = Path(options.model).stem
    if options.out is None or file.stem == asked or options.out.stem.startswith(asked):
        return []
    return [
        f"{options.out} has every size of {file.name}, and Ultralytics picks one by the file's name: name it "
        f"{asked}-dysample.yaml for the size of {options.model}"
    ]


def _build_notes(text: str, file: str) -> list[str]:
    """Try the layers at every size of the model: a row that cannot be built is better refused now than by `yolo`."""
    import yaml

    from yolov10_dysample.registration import build_on_meta
    from yolov10_dysample.rows import RowError

    model = {**yaml.safe_load(text), "yaml_file": file}
    try:
        for size in model.get("scales") or [""]:
            build_on_meta({**model, "scale": size})
    except RowError:
        raise
    except Exception as error:  # the rest of the model is its author's and the host's
        return [f"not tried out, since the model cannot be built here ({type(error).__name__}: {error})"]
    return []


def _write(out: Path, text: str, force: bool) -> None:
    """All of the text or nothing: a reader never sees half a file, and a failure leaves what was there."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder")
    if not out.name.endswith((".yaml", ".yml")):
        raise ValueError(f"{out} must end in .yaml: Ultralytics reads a model only from such a file")
    if out.exists() and not force:
        raise ValueError(f"{out} exists; write it again with --force")
    target = out.resolve()  # through a link, not in its place
    if not target.parent.is_dir():
        raise ValueError(f"{out} cannot be written: there is no folder {target.parent}")
    write_whole(target, text.encode())


def _plot(options: argparse.Namespace) -> int:
    try:
        fields, files = _plotted(_settings(options.settings))
    except (ImportError, OSError, ValueError) as error:
        print(f"{NAME} plot: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for file in files:
        print(file)
    for field in fields:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in field.statistics.items())
        print(f"layer {field.i}: offsets in pixels of its input: {figures}")
    return 0


def _settings(words: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for word in words:
        key, _, value = word.partition("=")
        if not key or not value:
            raise ValueError(f"arguments are key=value, such as weights=best.pt, got {word!r}")
        if key not in PLOT_KEYS:
            raise ValueError(f"the keys are {', '.join(PLOT_KEYS)}, got {word!r}")
        if key in settings:
            raise ValueError(f"{key} is given twice: {settings[key]!r} and {value!r}")
        settings[key] = value
    for key in ("weights", "source"):
        if key not in settings:
            raise ValueError(f"{key} is missing; write {NAME} plot weights=best.pt source=image.jpg")
    # What is no number stays as it is, for the check that knows the range to refuse.
    with contextlib.suppress(KeyError, ValueError):
        settings["imgsz"] = int(settings["imgsz"])
    with contextlib.suppress(KeyError, ValueError):
        settings["conf"] = float(settings["conf"])
    return settings


def _plotted(settings: dict[str, Any]) -> tuple[list[Any], list[Path]]:
    for key in ("weights", "other"):
        if key in settings:
            _check_weights(key, Path(settings[key]))
    from yolov10_dysample import plot

    out = settings.pop("out", None)
    plot.check_folder(out or FOLDER)
    with _quiet_host(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {key: _opened(key, settings.pop(key)) for key in ("weights", "other") if key in settings}
        fields, pictures = plot.draw(models["weights"], other=models.get("other"), **settings)
    return fields, plot.write(pictures, out or _next_free(FOLDER))


def _check_weights(key: str, file: Path) -> None:
    if file.suffix != ".pt":
        raise ValueError(f"{key} must be a .pt file: an export no longer has the layers to look at; got {file}")
    if not file.is_file():
        raise ValueError(f"{key} must be a .pt file, but {file} is {'a folder' if file.exists() else 'not there'}")


def _opened(key: str, file: str) -> Any:
    from ultralytics import YOLO

    try:
        return YOLO(file)
    except Exception as error:  # whatever unpickling some file comes to
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ValueError(f"{key} must be a checkpoint of Ultralytics, and {file} cannot be opened: {reason}") from None


@contextlib.contextmanager
def _quiet_host() -> Iterator[None]:
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("CRITICAL")
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _next_free(folder: Path) -> Path:
    names = itertools.chain([folder.name], (f"{folder.name}{n}" for n in itertools.count(2)))
    return next(path for name in names if not (path := folder.with_name(name)).exists())


def _doctor(options: argparse.Namespace) -> int:
    found = _probe()
    places = _installations()
    print(f"{NAME:12} {__version__}  {Path(__file__).parent}")
    print(f"{'python':12} {platform.python_version()}  {sys.executable}")
    for package in ("torch", "ultralytics"):
        version, file = found.get(package) or ("cannot be imported:", found["errors"].get(package, "no reason given"))
        print(f"{package:12} {version}  {file}")
    print(f"{'registered':12} {_registered(found)}")
    print(f"{'autoload':12} {_autoload(places)}")
    folder, count = found.get("configs") or ("not known", 0)
    print(f"{'configs':12} {count} in {folder}")
    for runtime, distributions in RUNTIMES:
        versions = [f"{name} {version}" for name in distributions if (version := _version(name))]
        print(f"{'export':12} {runtime}: {', '.join(versions) or 'not installed'}")

    problems = list(_problems(found, places))
    for warning in _other_hosts(found):
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}")
    print(f"not healthy: {len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "healthy")
    return 1 if problems else 0


def _probe() -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, errors="replace", timeout=300
        )
        lines = done.stdout.splitlines() or [""]
        found = json.loads(lines[-1])
        found["said"] = [line for line in (*lines[:-1], *done.stderr.splitlines()) if "yolov10_dysample" in line]
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        # A crash, not an exception: nothing is known but that.
        ended = f"a Python process that imports torch and Ultralytics does not end well ({error})"
        found = {"said": [], "errors": {"torch": ended, "ultralytics": ended}}
    return {"errors": {}, **found}


def _installations() -> list[str]:
    """Where the autoload entry point is installed, once each."""
    places = []
    for distribution in metadata.distributions():
        with contextlib.suppress(Exception):  # a half-removed package has broken metadata
            points = distribution.entry_points.select(group="torch.backends")
            if any(point.value == ENTRY_POINT for point in points):
                place = Path(str(distribution.locate_file(""))).resolve()
                places.append(f"{distribution.metadata['Name']} {distribution.version} in {place}")
    return list(dict.fromkeys(places))


def _switched_off() -> list[str]:
    return [f"{switch}=0" for switch in SWITCHES if os.environ.get(switch) == "0"]


def _ours(found: dict[str, Any]) -> bool:
    return found.get("itself") == "yolov10_dysample.dysample"


def _registered(found: dict[str, Any]) -> str:
    if _ours(found):
        return "yes, by itself"
    if found.get("asked"):
        return "not by itself, but `import yolov10_dysample` does it"
    return "no"


def _autoload(places: list[str]) -> str:
    if _switched_off():
        return f"off: {', '.join(_switched_off())} in the environment"
    count = {0: "never", 1: "once", 2: "twice"}.get(len(places), f"{len(places)} times")
    return f"on, entry point found {count}" + (f": {'; '.join(places)}" if places else "")


def _problems(found: dict[str, Any], places: list[str]) -> Iterator[str]:
    for package in ("torch", "ultralytics"):
        if package not in found:
            yield f"{package} cannot be imported: install it again (pip install --force-reinstall {package})"
            return
    if not _ours(found):
        yield from _why_not_registered(found, places)
    if len(places) > 1:
        yield f"installed more than once ({'; '.join(places)}): pip uninstall {NAME} until none is left, then install"
    if not (found.get("configs") or ("", 0))[1]:
        yield f"the shipped model YAMLs are missing: install {NAME} again"


def _why_not_registered(found: dict[str, Any], places: list[str]) -> Iterator[str]:
    reasons = [*found["said"], *(found["errors"][step] for step in ("itself", "asked") if step in found["errors"])]
    if _switched_off():
        yield f"autoload is off: unset {' and '.join(s.partition('=')[0] for s in _switched_off())}"
    elif not places:
        yield f"the autoload entry point is not installed: pip install {NAME}, rather than only a folder on the path"
    elif found.get("asked"):
        yield "torch did not call the autoload entry point: torch 2.5 or newer is needed"
    if not found.get("asked"):
        yield reasons[0] if reasons else "DySample could not be registered, for a reason that was not given"


def _other_hosts(found: dict[str, Any]) -> Iterator[str]:
    """Folders that Python may import as ``ultralytics`` instead of the one above, from here or in another process."""
    imported = Path(found["ultralytics"][1]).resolve().parent if "ultralytics" in found else None
    folders = dict.fromkeys(Path(entry or ".").resolve() for entry in ("", *sys.path))
    for folder in folders:
        other = folder / "ultralytics"
        if (other / "__init__.py").is_file() and other.resolve() != imported:
            yield f"another ultralytics lies in {folder}; Python started there, or with it on its path, may import it"


def _version(distribution: str) -> str | None:
    with contextlib.suppress(Exception):
        return metadata.version(distribution)
    return None
