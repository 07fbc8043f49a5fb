"""All that can be known to go wrong with a comparison before its first training. It must never write into its folder.

Training settings are read and checked by Ultralytics' own rules.

What fails here is said with the key that was typed; what can only fail later costs hours.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from yolov10_dysample.registration import build_on_meta
from yolov10_dysample.study.arms import Arm, upsampling_rows, with_arm
from yolov10_dysample.study.guidance import find_laterals
from yolov10_dysample.study.scoring import ground_truth, read_labels, unseen_truth

__all__ = [
    "DEFAULTS",
    "RESERVED",
    "Start",
    "check_arms",
    "check_data",
    "check_out",
    "checked_start",
    "setting_names",
    "training_setting",
]

#: What is the comparison's own to decide. One class of all, or some of them, would be other boxes to score against.
RESERVED = (
    *("model", "data", "seed", "device", "project", "name", "exist_ok", "resume", "pretrained", "mode", "task"),
    *("deterministic", "save", "save_dir", "val", "plots", "verbose", "save_json", "cfg", "fraction", "time"),
    *("patience", "single_cls", "classes"),
)
#: Settings of Ultralytics that a comparison starts from.
DEFAULTS = {"epochs": 100, "imgsz": 640, "batch": 16}
#: What would be passed on twice, or means nothing, if it is not a positive whole number.
_WHOLE = ("epochs", "imgsz", "batch")
#: A parameter in weights that Ultralytics has stripped (float16), and in both files of a training under way (float32,
#: with the state of an optimiser), in bytes.
STRIPPED, IN_TRAINING = 2, 2 * 16


class Start(NamedTuple):
    """What all runs of a comparison start from.

    Attributes:
        network (Any): The stock model, built or loaded.
        model (str): Its YAML.
        weights (str | None): The file of a warm start.
        digest (str | None): The first digits of that file's SHA-256.
    """

    network: Any
    model: str
    weights: str | None
    digest: str | None


def checked_start(model: str | None, warm_start: str | None, default: str) -> Start:
    """The stock model of a YAML, or that of weights to start from; of both, if they are the same model's.

    Raises:
        ValueError: If it is no stock detection model that upsamples, or the two do not belong together.
    """
    if not warm_start:
        return Start(_loaded(model or default, "model"), model or default, None, None)
    file = _weights_file(warm_start)
    network = _loaded(str(file), "warm_start")
    if model and _shapes(network) != _shapes(_loaded(model, "model")):
        raise ValueError(f"warm_start must be weights of model={model}, got {warm_start!r}, which has other layers")
    named = model or Path(network.yaml.get("yaml_file", warm_start)).name
    return Start(network, named, str(file), hashlib.sha256(file.read_bytes()).hexdigest()[:16])


def _weights_file(warm_start: str) -> Path:
    """The file to start from, downloaded if Ultralytics publishes it."""
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    file, why = Path(warm_start), ""
    if not file.is_file() and file.name in GITHUB_ASSETS_NAMES:
        try:
            file = Path(attempt_download_asset(warm_start))
        except Exception as error:
            why = f", which cannot be downloaded: {error}"
    if not file.is_file():
        raise ValueError(f"warm_start must be a weights file, got {warm_start!r}{why}")
    return file


def _loaded(model: str, key: str) -> Any:
    from ultralytics import YOLO

    kind, verb = ("weights", "upsample") if key == "warm_start" else ("a model YAML", "upsamples")
    if (Path(model).suffix in (".yaml", ".yml")) is not (key == "model"):
        raise ValueError(
            f"{key} must be {kind}, got {model!r}; there are model=yolov10n.yaml and warm_start=yolov10n.pt"
        )
    try:
        stock: Any = YOLO(model)
        rows = upsampling_rows(stock.model.yaml)
    except Exception as error:
        raise ValueError(f"{key} must be {kind} that {verb}, got {model!r}: {error}") from None
    if stock.task != "detect" or not rows:
        raise ValueError(
            f"{key} must be {kind} of a stock detection model that upsamples, such as yolov10n, got {model!r}"
        )
    return stock.model


def _shapes(network: Any) -> dict[str, Any]:
    """Those of all weights but the head's, which depend on the classes."""
    return {name: value.shape for name, value in network.model[:-1].state_dict().items()}


def check_arms(stock: Any, arms: Sequence[Arm]) -> None:
    """Build what every arm would train.

    Raises:
        ValueError: If an arm's settings do not fit the model.
    """
    for arm in arms:
        try:
            layers = build_on_meta(with_arm(stock.yaml, arm))
            if arm.guided:
                find_laterals(layers)
        except (ValueError, RuntimeError) as error:  # RuntimeError: DySample is not registered
            raise ValueError(f"arms: {arm.name}: {error}") from None


def check_data(data: str) -> None:
    """Find a data set, downloaded if its YAML says how, and read the labels that runs learn and are scored with.

    Raises:
        ValueError: If it cannot be trained or scored with.
    """
    try:
        ground_truth(data)
        unseen_truth(data)
        if not any(len(label["cls"]) for label in read_labels(data, "train")[1]):
            raise ValueError("must have labelled boxes in its train split, got none")
    except ValueError as error:
        raise ValueError(f"data {error}, in {data!r}") from None
    except Exception as error:
        raise ValueError(f"data must be a detection data set YAML, got {data!r}: {error}") from None


def check_out(out: Path, parameters: int, runs: int, parallel: int) -> None:
    """See whether a folder can be written, with the weights of all runs.

    Raises:
        ValueError: If it cannot, or the disk is too small.
    """
    there = next((folder for folder in (out, *out.absolute().parents) if folder.exists()), None)
    if there is None:
        raise ValueError(
            f"out must be a folder that can be written, got {str(out)!r}; {out.absolute().anchor} is missing"
        )
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"out must be a folder that can be written, got {str(out)!r}; {there} is not")
    needed = parameters * (STRIPPED * runs + IN_TRAINING * min(parallel, runs))
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"out must have room for the weights of {runs} runs, about {needed / 1e6:,.0f} MB, got {str(out)!r} with "
            f"{free / 1e6:,.0f} MB free; name a folder on another disk"
        )


def setting_names() -> list[str]:
    """The names of all settings that Ultralytics has."""
    from ultralytics.cfg import DEFAULT_CFG_DICT

    return list(DEFAULT_CFG_DICT)


def training_setting(name: str, text: str) -> Any:
    """The value of a training setting, as ``yolo train`` would read it.

    Raises:
        ValueError: If the comparison decides it, or Ultralytics refuses it.

    Example:
        >>> training_setting("lr0", "1e-3"), training_setting("cos_lr", "True")
        (0.001, True)
    """
    from ultralytics.cfg import get_cfg, smart_value

    if name in RESERVED:
        raise ValueError(f"{name} is decided by the comparison and cannot be set, got {name}={text}")
    value = smart_value(text)
    try:
        get_cfg(overrides={name: value})
    except Exception as error:
        raise ValueError(f"{name}={text} is refused by Ultralytics: {' '.join(str(error).split())[:200]}") from None
    if name == "optimizer":
        _check_optimizer(value)
    if name in _WHOLE and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be a whole number of at least 1, so that all runs are alike, got {text!r}")
    return value


def _check_optimizer(name: Any) -> None:
    """Have Ultralytics make it: which ones it knows differs between its releases, and is written down nowhere else."""
    from ultralytics.engine.trainer import BaseTrainer

    trainer: Any = None  # which only `auto` needs
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # it tells what it made
    try:
        if str(name).lower() != "auto":
            BaseTrainer.build_optimizer(trainer, nn.Linear(1, 1), name=name)
    except NotImplementedError as error:
        raise ValueError(f"optimizer={name} is refused by Ultralytics: {' '.join(str(error).split())[:200]}") from None
    except Exception:  # one that it knows, and makes for whole models alone
        return
    finally:
        logging.disable(disabled)
