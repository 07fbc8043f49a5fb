"""Everything that touches Ultralytics, in one list: :data:`HOST_CHANGES`.

Nothing is written to disk and nothing of Ultralytics is rewritten: functions are wrapped, and a wrapper passes on
whatever does not concern DySample. An Ultralytics that is not as expected is left as it is, with one line that says so.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from yolov10_dysample.convert import convert_rows, list_rows
from yolov10_dysample.dysample import DySample
from yolov10_dysample.exporting import on_export_start
from yolov10_dysample.map_sizes import explain_size_mismatch
from yolov10_dysample.model_files import SUFFIX, config_dir, find_config, find_lower_case, means_dysample
from yolov10_dysample.rows import (
    ROW_NAME,
    RowBuilder,
    RowError,
    find_parser_fault,
    has_dysample_rows,
    input_channels,
    with_checked_rows,
)
from yolov10_dysample.training_plots import CALLBACKS
from yolov10_dysample.version import __version__

#: All that this package changes in a process, as (what, how). docs/how-it-works.md repeats this list.
HOST_CHANGES = (
    ("sys.meta_path", "a finder added: it registers DySample as soon as ultralytics.nn.tasks has been loaded"),
    ("ultralytics.nn.tasks.DySample", "added: the model parser looks layers up there"),
    (f"ultralytics.nn.tasks.{ROW_NAME}", "added: what the wrapped parser builds DySample rows with"),
    ("ultralytics.nn.modules.DySample", "added, beside Ultralytics' own layers"),
    ("ultralytics.nn.tasks.parse_model", "wrapped: checks DySample rows and gives them their input width"),
    ("ultralytics.nn.tasks.yaml_model_load", "wrapped: finds the shipped configs, and any stock name plus -dysample"),
    ("ultralytics.*.parse_model", "replaced by the wrapped one in each loaded module that imported it by name"),
    ("ultralytics.*.yaml_model_load", "replaced by the wrapped one in each loaded module that imported it by name"),
    ("ultralytics.nn.tasks.DetectionModel.__init__", "wrapped: says which DySample row is why a model cannot run"),
    ("ultralytics.nn.tasks.SemanticSegmentationModel.__init__", "wrapped in the same way, where there is that class"),
    (
        "ultralytics.nn.tasks.BaseModel.load",
        "wrapped: warns of weights whose DySample rows have another init or dyscope here, or none",
    ),
    (
        "ultralytics.utils.callbacks.base.default_callbacks",
        "on_export_start added: picks and checks what DySample needs",
    ),
    (
        "ultralytics.utils.callbacks.base.default_callbacks",
        ", ".join(callback.__name__ for callback in CALLBACKS)
        + " added: leave in a run's folder, and with its loggers, what DySample layers learn",
    ),
    (
        "ultralytics.*.add_integration_callbacks",
        "wrapped in each loaded module that has it: what runs without these callbacks gets them, as with a model that "
        "was made before, or whose callbacks were reset",
    ),
    (
        "MNN.tools.utils.log",
        "kept out of exports to MNN, of stock models too: loading this usage log of MNN's runs pip install",
    ),
    ("torch.serialization", "DySample added to the safe globals, for ULTRALYTICS_SAFE_LOAD=1"),
)

#: The classes that run a new model once, to find its strides. The other classes of Ultralytics are made of these, or
#: run no model before it is trained or used.
_RUN_WHEN_BUILT = ("DetectionModel", "SemanticSegmentationModel")

_WRAPPED_FLAG = "_yolov10_dysample"
_logger = logging.getLogger("ultralytics")  # what the user sees of Ultralytics goes through it
_lock = threading.RLock()


def register() -> bool:
    """Make DySample known to Ultralytics. May be called any number of times, at any time, from any thread.

    Returns:
        bool: Whether this process was fit to be registered with. If not, a warning has said why, and nothing was
            changed: what an earlier call registered still works.

    Example:
        >>> register()
        True
        >>> from ultralytics import YOLO
        >>> YOLO("yolov10n-dysample.yaml").model.model[11].in_channels
        256
    """
    # Imported before the lock is taken: the thread that is loading one of them calls this function at its end.
    tasks = importlib.import_module("ultralytics.nn.tasks")
    modules = importlib.import_module("ultralytics.nn.modules")
    callbacks = importlib.import_module("ultralytics.utils.callbacks.base")
    with _lock:
        incompatibility = _incompatibility(tasks, modules)
        if incompatibility:
            _warn_once(incompatibility)
            return False
        for namespace, name, value in (
            (tasks, "DySample", DySample),
            (modules, "DySample", DySample),
            (tasks, ROW_NAME, RowBuilder),
        ):
            setattr(namespace, name, value)
        _wrap(tasks, "parse_model", _with_dysample_rows)
        _wrap(tasks, "yaml_model_load", _with_dysample_models)
        for model_class in (getattr(tasks, name) for name in _RUN_WHEN_BUILT if hasattr(tasks, name)):
            _wrap(model_class, "__init__", _with_explained_sizes)
        if hasattr(getattr(tasks, "BaseModel", None), "load"):
            _wrap(tasks.BaseModel, "load", _with_warning_of_other_layers)
        _add_callbacks(callbacks.default_callbacks)
        if hasattr(callbacks, "add_integration_callbacks"):
            _wrap(callbacks, "add_integration_callbacks", _with_dysample_callbacks)
        torch.serialization.add_safe_globals([DySample])
    return True


def build_on_meta(model: dict[str, Any]) -> nn.Sequential:
    """The layers Ultralytics would build from a parsed model YAML, on the meta device: shapes without memory.

    Raises:
        RowError: If a DySample row cannot be built.
        RuntimeError: If DySample is not registered in this process.
    """
    if not register():
        raise RuntimeError("DySample is not registered with Ultralytics here; `yolov10-dysample doctor` says why")
    tasks = importlib.import_module("ultralytics.nn.tasks")
    activation = tasks.Conv.default_act
    try:
        with torch.device("meta"):
            layers, _ = tasks.parse_model(copy.deepcopy(model), input_channels(model), verbose=False)
    finally:  # older Ultralytics leaves a model's own to all that are built after it
        tasks.Conv.default_act = activation
    return layers


def _incompatibility(tasks: ModuleType, modules: ModuleType) -> str | None:
    """Why this Ultralytics cannot be used, or None."""
    fault = _missing_function(tasks)
    if fault:
        return _no_fit(fault)
    for namespace in (tasks, modules):
        other = getattr(namespace, "DySample", DySample)
        if other is not DySample and getattr(other, "__module__", None) == DySample.__module__:
            return (
                "yolov10_dysample was loaded a second time in this process, and models are built with the first copy: "
                "start a new process to use a changed one"
            )
        if other is not DySample:
            return (
                f"{namespace.__name__}.DySample is already there, from {getattr(other, '__module__', 'elsewhere')}: it "
                f"stays in use, and yolov10_dysample does nothing in this process. To use yolov10_dysample, remove or "
                f"rename the other class"
            )
    fault = None if _is_wrapped(tasks.parse_model) else _parser_fault(tasks)
    return _no_fit(f"its model parser cannot build a DySample row ({fault})") if fault else None


def _missing_function(tasks: ModuleType) -> str | None:
    for name, leading in (("parse_model", ["d", "ch"]), ("yaml_model_load", ["path"])):
        function = getattr(tasks, name, None)
        if not callable(function) or list(inspect.signature(function).parameters)[: len(leading)] != leading:
            return f"ultralytics.nn.tasks has no {name}({', '.join(leading)}, ...)"
    return None


def _parser_fault(tasks: ModuleType) -> str | None:
    """What the parser does wrong with DySample rows, tried without leaving a trace in the parser's module."""
    before = getattr(tasks, ROW_NAME, None)
    setattr(tasks, ROW_NAME, RowBuilder)
    try:
        # Ultralytics' own function: what other plugins have wrapped round it need not see a model nobody asked for.
        return find_parser_fault(inspect.unwrap(tasks.parse_model))
    finally:
        if before is None:
            delattr(tasks, ROW_NAME)
        else:  # from an earlier call: models are built with it
            setattr(tasks, ROW_NAME, before)


def _no_fit(fault: str) -> str:
    version = getattr(sys.modules.get("ultralytics"), "__version__", "of unknown version")
    return (
        f"yolov10_dysample {__version__} does not fit Ultralytics {version}: {fault}. Ultralytics is left untouched; "
        f"look for a newer yolov10_dysample"
    )


def _add_callbacks(callbacks: dict[str, list[Callable]]) -> None:
    for callback in (on_export_start, *CALLBACKS):
        of_event = callbacks.setdefault(callback.__name__, [])
        if callback not in of_event:
            of_event.append(callback)


@functools.cache
def _warn_once(message: str) -> None:
    _logger.warning(f"{message}.")


@functools.cache
def _inform_once(message: str) -> None:  # Ultralytics reads a model's YAML more than once
    _logger.info(message)


def _is_wrapped(function: Callable) -> bool:
    return getattr(function, _WRAPPED_FLAG, False)  # functools.wraps of a later plugin carries the flag along


def _wrap(owner: ModuleType | type, name: str, wrapper: Callable[[Callable], Callable]) -> None:
    """Wrap a function of a module or a class, also in the modules of Ultralytics that have imported it by name."""
    original = getattr(owner, name)
    if _is_wrapped(original):
        return
    wrapped = functools.update_wrapper(wrapper(original), original)
    wrapped.__dict__[_WRAPPED_FLAG] = True
    setattr(owner, name, wrapped)
    for module in [m for key, m in list(sys.modules.items()) if key.partition(".")[0] == "ultralytics"]:
        if getattr(module, "__dict__", {}).get(name) is original:
            setattr(module, name, wrapped)


def _with_dysample_rows(parse_model: Callable) -> Callable:
    def parse(d: dict[str, Any], ch: int, *args: Any, **kwargs: Any) -> Any:
        return parse_model(with_checked_rows(d) if has_dysample_rows(d) else d, ch, *args, **kwargs)

    return parse


def _with_explained_sizes(init: Callable) -> Callable:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except RuntimeError:
            has_layers = isinstance(getattr(self, "model", None), nn.Sequential)
            mismatch = explain_size_mismatch(self) if has_layers and has_dysample_rows(self.yaml) else None
            if mismatch is None:
                raise
            raise RowError(mismatch) from None

    return __init__


def _with_warning_of_other_layers(load: Callable) -> Callable:
    """The tensors of a DySample layer do not say where it starts to sample, so that they load into any."""

    def load_and_warn(self: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, weights, *args, **kwargs)
        with contextlib.suppress(Exception):  # whatever was given as weights, Ultralytics has taken it
            source = (weights.get("ema") or weights["model"]) if isinstance(weights, dict) else weights
            lost = [
                str(i)
                for i, (old, new) in enumerate(zip(source.model, self.model, strict=False))
                if isinstance(old, DySample) and isinstance(new, nn.Upsample)
            ]
            if lost:
                _logger.warning(
                    f"DySample, row{'s' * (len(lost) > 1)} {', '.join(lost)}: weights trained with it are loaded into "
                    "a model that upsamples by nn.Upsample there. Name a *-dysample.yaml model to keep DySample."
                )
            for (name, was, now), rows in _changed_layers(source.model, self.model).items():
                _logger.warning(
                    f"DySample, row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))}: weights trained with "
                    f"{name}={was!r} are loaded into {name}={now!r}, where they sample other places. Write {was} there "
                    f"in the model YAML to keep what they learnt."
                )
        return result

    return load_and_warn


def _changed_layers(source: nn.Sequential, target: nn.Sequential) -> dict[tuple, list[int]]:
    """The rows of DySample layers that give other maps with one's weights in the other, by (setting, before, now).

    Plain weights lose nothing where the range is predicted: it starts at the fixed one.
    """
    changed: dict[tuple, list[int]] = {}
    for i, (old, new) in enumerate(zip(source, target, strict=False)):
        if isinstance(old, DySample) and isinstance(new, DySample):
            for name in ("init", "dyscope"):
                was, now = getattr(old, name), getattr(new, name)
                if (name, was) == ("dyscope", False) or old.offset.weight.shape != new.offset.weight.shape:
                    continue  # it stays as it was
                if was != now:
                    changed.setdefault((name, was, now), []).append(i)
    return changed


def _with_dysample_callbacks(add_integration_callbacks: Callable) -> Callable:
    """Called with each trainer, validator, predictor and exporter: a model's own callbacks may lack DySample's.

    They come before those of the loggers, which send what they find.
    """

    def add(instance: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(instance, "callbacks", None), dict):
            _add_callbacks(instance.callbacks)
        return add_integration_callbacks(instance, *args, **kwargs)

    return add


def _with_dysample_models(yaml_model_load: Callable) -> Callable:
    """What Ultralytics finds is Ultralytics': only a file that it misses is looked up here."""

    def load(path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        def read(path: str | Path) -> dict[str, Any]:
            return yaml_model_load(path, *args, **kwargs)

        try:
            model = read(path)
        except FileNotFoundError:
            if not means_dysample(path):
                raise
        else:
            if means_dysample(path):
                _check_has_rows(model, path)
            return model
        config = find_config(path)
        model = read(config) if config else _converted_stock(str(path), read)
        model["yaml_file"] = str(path)  # exports are named after it and written beside it
        return model

    return load


def _check_has_rows(model: dict[str, Any], path: str | Path) -> None:
    """Refuse a file without layers, empty perhaps, which Ultralytics would answer with a bare ``KeyError``."""
    try:
        list_rows(model, f"'{path}'")
    except ValueError as error:
        hint = (
            ". It comes before the model of that name that yolov10_dysample ships: to use that one, rename or delete it"
            if find_config(path)
            else ""
        )
        raise ValueError(f"{error}{hint}") from None


def _converted_stock(name: str, yaml_model_load: Callable) -> dict[str, Any]:
    """What Ultralytics finds for ``X.yaml``, its upsampling swapped, for a bare name ``X-dysample.yaml``."""
    file = Path(name)
    stock = f"{file.stem.removesuffix(SUFFIX)}{file.suffix}" if file.name == name else None
    try:
        model = yaml_model_load(stock) if stock else {}
    except FileNotFoundError:
        model = {}
    if "head" not in model:
        raise FileNotFoundError(f"'{name}' does not exist. {_models_to_name(name)}")
    try:
        converted, rows = convert_rows(model)
    except ValueError as error:
        raise ValueError(f"'{name}' cannot be made from Ultralytics' {stock}: {error}") from None
    _inform_once(f"{name}: {stock} with DySample in place of nn.Upsample in rows {', '.join(map(str, rows))}")
    return converted


def _models_to_name(name: str) -> str:
    """What to write instead of a name that is not found."""
    meant = find_lower_case(name)
    if meant:
        return f"Names of models are written in small letters: did you mean '{meant}'?"
    shipped = ", ".join(sorted(file.name for file in config_dir().glob("*.yaml")))
    return (
        f"Models that need no file, given by their bare name: {shipped}, and the name of any stock model that "
        f"upsamples, with {SUFFIX} at its end, such as yolo11n-seg{SUFFIX}.yaml"
    )
