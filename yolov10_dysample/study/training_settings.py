"""The training settings that a comparison passes on to Ultralytics, read and checked by Ultralytics' own rules."""

from __future__ import annotations

from typing import Any

__all__ = ["DEFAULTS", "RESERVED", "setting_names", "training_setting"]

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
    if name in _WHOLE and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{name} must be a whole number of at least 1, so that all runs are alike, got {text!r}")
    return value
