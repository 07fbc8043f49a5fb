"""Everything that touches Ultralytics, in one list: :data:`TOUCHES`.

Nothing is written to disk and nothing of the host is rewritten: functions are wrapped, and a wrapper passes on whatever
does not concern DySample. A host that is not as expected is left as it is, with one line that says so.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from yolov10_dysample import __version__
from yolov10_dysample.dysample import MAX_SCALE, DySample
from yolov10_dysample.surgery import convert_rows

#: All that :func:`register` changes in a process, as (what, how). The README repeats this list.
TOUCHES = (
    ("ultralytics.nn.tasks.DySample", "added: the model parser looks layers up there"),
    ("ultralytics.nn.tasks._DySampleRow", "added: what the wrapped parser builds DySample rows with"),
    ("ultralytics.nn.modules.DySample", "added, beside the host's own layers"),
    ("ultralytics.nn.tasks.parse_model", "wrapped: checks DySample rows and gives them their input width"),
    ("ultralytics.nn.tasks.yaml_model_load", "wrapped: finds the shipped configs, and any stock name plus -dysample"),
    (
        "ultralytics.utils.callbacks.base.default_callbacks",
        "on_export_start added: picks and checks what DySample needs",
    ),
    ("torch.serialization", "DySample added to the safe globals, for ULTRALYTICS_SAFE_LOAD=1"),
)

#: How a DySample row's arguments may be written in a model YAML.
ROW_SYNTAX = "[], [scale], [scale, style], [scale, style, groups], [.., dyscope] or [.., dyscope, init]"

#: ONNX opsets that export DySample and that every runtime reads right.
OPSETS = (16, 19)
#: Export formats whose runtimes sample all groups at once faster than one after the other.
FOLDING_FORMATS = ("openvino", "torchscript")

#: Export formats whose converters had no grid sampling when last tried (results/formats.md).
UNSAMPLED_FORMATS = ("paddle", "coreai")

SUFFIX = "-dysample"
_ROW = "_DySampleRow"
_MARK = "_yolov10_dysample"
_lock = threading.RLock()


class RowError(ValueError):
    """A DySample row that cannot be built; the message says which, and what to write instead."""


def register() -> bool:
    """Make DySample known to Ultralytics. May be called any number of times, at any time, from any thread.

    Returns:
        bool: Whether ``DySample`` rows work from here on. If not, a warning has said why and nothing was changed.

    Example:
        >>> register()
        True
        >>> from ultralytics import YOLO
        >>> YOLO("yolov10n-dysample.yaml").model.model[11].in_channels
        256
    """
    with _lock:
        tasks = importlib.import_module("ultralytics.nn.tasks")
        modules = importlib.import_module("ultralytics.nn.modules")
        misfit = _misfit(tasks, modules)
        if misfit:
            _warn_once(misfit)
            return False
        for namespace, name, value in (
            (tasks, "DySample", DySample),
            (modules, "DySample", DySample),
            (tasks, _ROW, _Row),
        ):
            setattr(namespace, name, value)
        _wrap(tasks, "parse_model", _with_dysample_rows)
        _wrap(tasks, "yaml_model_load", _with_dysample_models)
        if _on_export_start not in _export_callbacks():
            _export_callbacks().append(_on_export_start)
        torch.serialization.add_safe_globals([DySample])
    return True


def find_config(name: str | Path) -> Path | None:
    """The shipped model YAML of that bare file name, or None.

    Example:
        >>> find_config("yolov10n-dysample.yaml").name
        'yolov10n-dysample.yaml'
        >>> find_config("elsewhere/yolov10n-dysample.yaml")
    """
    file = config_dir() / Path(name).name
    return file if str(name) == file.name and file.is_file() else None


def config_dir() -> Path:
    """The folder of the shipped model YAMLs: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def find_stock(name: str | Path) -> Path | None:
    """The model YAML of the installed Ultralytics that a bare name means, or None. Ultralytics is not imported.

    Example:
        >>> find_stock("yolo11s-seg.yaml").name  # one file for all sizes
        'yolo11-seg.yaml'
        >>> find_stock("elsewhere/yolo11s-seg.yaml")
    """
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None or Path(name).name != str(name):
        return None
    stock = {file.name: file for file in Path(spec.origin).parent.glob("cfg/models/**/*.yaml")}
    without_size = re.sub(r"(\d)[nslmx](?=[-.])", r"\1", str(name))
    return stock.get(str(name)) or stock.get(without_size)


def plan(model: dict[str, Any]) -> nn.Sequential:
    """The layers the host would build from a parsed model YAML, on the meta device: shapes without memory.

    Raises:
        RowError: If a DySample row cannot be built.
        RuntimeError: If DySample is not registered in this process.
    """
    if not register():
        raise RuntimeError("DySample is not registered with Ultralytics here; `yolov10-dysample doctor` says why")
    tasks = importlib.import_module("ultralytics.nn.tasks")
    channels = model.get("channels") or model.get("ch") or 3
    with torch.device("meta"):
        layers, _ = tasks.parse_model(copy.deepcopy(model), channels, verbose=False)
    return layers


def _misfit(tasks: ModuleType, modules: ModuleType) -> str | None:
    """Why this host cannot be used, or None."""
    for name, leading in (("parse_model", ["d", "ch"]), ("yaml_model_load", ["path"])):
        function = getattr(tasks, name, None)
        if not callable(function) or list(inspect.signature(function).parameters)[: len(leading)] != leading:
            return (
                f"yolov10_dysample {__version__} does not fit Ultralytics {_host_version()}: "
                f"ultralytics.nn.tasks has no {name}({', '.join(leading)}, ...). Ultralytics is left untouched; "
                f"look for a newer yolov10_dysample"
            )
    for namespace in (tasks, modules):
        other = getattr(namespace, "DySample", DySample)
        if other is not DySample:
            return (
                f"{namespace.__name__}.DySample is already there, from {getattr(other, '__module__', 'elsewhere')}: it "
                f"stays in use, and yolov10_dysample does nothing in this process. To use yolov10_dysample, remove or "
                f"rename the other class"
            )
    return None


def _export_callbacks() -> list[Callable]:
    return importlib.import_module("ultralytics.utils.callbacks.base").default_callbacks["on_export_start"]


def _host_version() -> str:
    return getattr(sys.modules.get("ultralytics"), "__version__", "of unknown version")


@functools.cache
def _warn_once(message: str) -> None:
    _logger().warning(f"WARNING {message}.")


@functools.cache
def _inform_once(message: str) -> None:  # the host reads a model's YAML more than once
    _logger().info(message)


def _logger() -> Any:
    return importlib.import_module("ultralytics.utils").LOGGER


def _wrap(tasks: ModuleType, name: str, wrapper: Callable[[Callable], Callable]) -> None:
    """Wrap a function of the parser, also in the modules that have imported it by name."""
    original = getattr(tasks, name)
    if getattr(original, _MARK, False):  # functools.wraps of a later plugin carries the mark along
        return
    wrapped = functools.update_wrapper(wrapper(original), original)
    wrapped.__dict__[_MARK] = True
    for module in [m for key, m in list(sys.modules.items()) if key.partition(".")[0] == "ultralytics"]:
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, wrapped)


def _on_export_start(exporter: Any) -> None:
    """Prepare the model for its export; 8.3.0 to 8.3.125 say "start" before the exporter has it."""
    if hasattr(exporter, "model"):
        _prepare_export(exporter, OPSETS[0] + 1)  # the host's own choice has been 20 in some releases
        return
    host = type(exporter)

    class Waiting(host):  # type: ignore[misc, valid-type]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "model":
                self.__class__ = host
                # These hosts leave the exporter to torch, whose newer one spoils its opset 18 in making 17 of it.
                _prepare_export(self, OPSETS[0] + 2)

    exporter.__class__ = Waiting


def _prepare_export(exporter: Any, default_opset: int) -> None:
    """Export a model with DySample layers in the form that suits the format, at an ONNX opset that keeps its maths."""
    layers = [layer for layer in exporter.model.modules() if isinstance(layer, DySample)]
    if not layers:
        return
    opset = exporter.args.opset
    if opset is None:
        exporter.args.opset = default_opset
    elif opset < OPSETS[0]:
        raise ValueError(
            f"DySample needs ONNX opset {OPSETS[0]} or newer, which has GridSample, got opset={opset}. "
            f"Leave opset out, or use {OPSETS[0]} to {OPSETS[1]}"
        )
    elif opset > OPSETS[1]:
        _logger().warning(
            f"WARNING DySample at ONNX opset {opset}: from opset 20 on TensorRT misreads GridSample's mode and samples "
            f"nearest, without a word (NVIDIA/TensorRT#4646). For an engine use opset {OPSETS[0]} to {OPSETS[1]}."
        )
    if exporter.args.format in UNSAMPLED_FORMATS:
        _logger().warning(
            f"WARNING the converter to {exporter.args.format} had no grid sampling, which DySample "
            f"needs, when last tried (results/formats.md). If it fails, export to onnx instead."
        )
    for layer in layers:
        layer.fold_traced_groups = exporter.args.format in FOLDING_FORMATS


def _with_dysample_models(yaml_model_load: Callable) -> Callable:
    """What the host finds is the host's: only a file that it misses is looked up here."""

    def load(path: str | Path) -> dict[str, Any]:
        try:
            return yaml_model_load(path)
        except FileNotFoundError:
            if not Path(path).stem.endswith(SUFFIX):
                raise
        config = find_config(path)
        model = yaml_model_load(config) if config else _converted_stock(str(path), yaml_model_load)
        model["yaml_file"] = str(path)  # exports are named after it and written beside it
        return model

    return load


def _converted_stock(name: str, yaml_model_load: Callable) -> dict[str, Any]:
    """What the host finds for ``X.yaml``, its upsampling swapped, for a bare name ``X-dysample.yaml``."""
    file = Path(name)
    stock = f"{file.stem.removesuffix(SUFFIX)}{file.suffix}" if file.name == name else None
    try:
        model = yaml_model_load(stock) if stock else {}
    except FileNotFoundError:
        model = {}
    if "head" not in model:
        shipped = ", ".join(sorted(file.name for file in config_dir().glob("*.yaml")))
        raise FileNotFoundError(
            f"'{name}' does not exist. Models that need no file, given by their bare name: {shipped}, and the name of "
            f"any stock model that upsamples, with {SUFFIX} at its end, such as yolo11n-seg{SUFFIX}.yaml"
        )
    try:
        converted, rows = convert_rows(model)
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be made from Ultralytics' {stock}: {error}") from None
    _inform_once(f"{name}: {stock} with DySample in place of nn.Upsample in rows {', '.join(map(str, rows))}")
    return converted


def _with_dysample_rows(parse_model: Callable) -> Callable:
    def parse(d: dict[str, Any], ch: int, *args: Any, **kwargs: Any) -> Any:
        rows = [*d.get("backbone", ()), *d.get("head", ())]
        if not any(_names_dysample(row) for row in rows):
            return parse_model(d, ch, *args, **kwargs)
        file = d.get("yaml_file") or "the model"
        rows = [_parser_row(row, i, file) if _names_dysample(row) else row for i, row in enumerate(rows)]
        split = len(d["backbone"])
        return parse_model({**d, "backbone": rows[:split], "head": rows[split:]}, ch, *args, **kwargs)

    return parse


def _names_dysample(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and len(row) > 2 and row[2] == DySample.__name__


class _Settings(NamedTuple):
    """A checked DySample row, carried through the host's parser as one argument."""

    source: int | None
    where: str
    arguments: tuple

    def __repr__(self) -> str:  # shown in the host's table of layers, after the width
        return ", ".join(map(str, self.arguments)) or "defaults"


class _Row(DySample):
    """What the host's parser calls for a DySample row; gives back a plain :class:`DySample`."""

    def __new__(cls, width: Any, row: _Settings) -> DySample:  # type: ignore[misc]
        try:
            layer: Any = DySample(width if row.source is None else width[row.source], *row.arguments)
        except ValueError as error:
            raise RowError(f"{row.where}: {error}") from None
        layer.np = sum(parameter.numel() for parameter in layer.parameters())  # 8.3.0 tells only this class
        return layer


# The host prints and stores the class's name as the layer's type.
_Row.__module__, _Row.__qualname__ = DySample.__module__, DySample.__qualname__


def _parser_row(row: Any, index: int, file: str) -> list:
    """A checked row in the form that the host's parser builds with the right width.

    The parser replaces a string argument that is the name of one of its own variables by the variable: ``c2`` is the
    width of the row before, ``ch`` the widths of all rows before.
    """
    where = f"DySample, row {index} of {file}"
    if len(row) != 4:
        raise RowError(f"{where}: a row is [from, repeats, module, args], got {row!r}")
    source, repeats, _, arguments = row
    if not isinstance(source, int) or isinstance(source, bool) or not -max(index, 1) <= source < index:
        raise RowError(f"{where}: `from` must be -1 or the index of one earlier row, got {source!r}")
    if repeats != 1 or isinstance(repeats, bool):
        raise RowError(
            f"{where}: `repeats` must be 1 (for a larger step use [scale], up to {MAX_SCALE}), got {repeats!r}"
        )
    if not isinstance(arguments, (list, tuple)):
        raise RowError(f"{where}: args must be a list, one of {ROW_SYNTAX}, got {arguments!r}")
    settings = _Settings(None if source == -1 else source, where, _checked_arguments(arguments, where))
    return [source, repeats, _ROW, ["c2" if source == -1 else "ch", settings]]


def _checked_arguments(arguments: list | tuple, where: str) -> tuple:
    """The arguments of a row, refused here if the layer's own checks would not say what the row's writer mistook."""
    mistake = None
    if len(arguments) > 5:
        mistake = "too many arguments"
    elif arguments and arguments[0] in (None, "None"):
        mistake = "these are nn.Upsample's arguments"
    elif arguments and isinstance(arguments[0], int) and arguments[0] > MAX_SCALE:
        mistake = f"{arguments[0]} looks like a number of channels: DySample takes its width from the row it reads"
    if mistake:
        raise RowError(f"{where}: {mistake}. Write {ROW_SYNTAX}, got {list(arguments)!r}")
    return tuple(arguments)
