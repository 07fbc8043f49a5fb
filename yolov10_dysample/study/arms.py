"""The arms of a comparison: ways to upsample, by name, and the model YAML that each of them makes of a stock one.

An arm changes the upsampling rows of a model, and must never change anything else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from yolov10_dysample.convert import UPSAMPLE, convert_rows
from yolov10_dysample.dysample import INITS, VARIANTS

__all__ = ["BILINEAR", "KINDS", "NEAREST", "STOCK", "Arm", "parse_arm", "slug", "upsampling_rows", "with_arm"]

NEAREST, BILINEAR = "nearest", "bilinear"
STOCK = (NEAREST, BILINEAR)
KINDS = (*STOCK, *VARIANTS)

#: Settings that a DySample arm may have after its name: what their text looks like, and what it means.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "init": ("|".join(INITS), str),
    "groups": (r"\d+", int),
    "rows": (r"\d+(\+\d+)*", lambda text: [int(row) for row in text.split("+")]),
}


class Arm(NamedTuple):
    """One way to upsample.

    Attributes:
        name (str): As it was typed and is printed: ``nearest``, ``dysample+`` or ``dysample:groups=8:rows=11+14``.
        kind (str): One of :data:`KINDS`.
        layer (dict): Arguments of :func:`~yolov10_dysample.convert.convert_rows` that make it; for stock kinds none.
    """

    name: str
    kind: str
    layer: dict[str, Any]


def parse_arm(text: str) -> Arm:
    """The arm of a name.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> parse_arm("dysample:init=nearest:rows=11+14").layer["rows"]
        [11, 14]
    """
    kind, *options = text.split(":")
    if kind not in KINDS:
        raise ValueError(f"must be some of {', '.join(KINDS)}, got {kind!r}")
    layer = dict(VARIANTS.get(kind, {}))
    for option in options:
        name, _, value = option.partition("=")
        pattern, read = _OPTIONS.get(name, ("", str))
        if kind in STOCK or not pattern or not re.fullmatch(pattern, value):
            raise ValueError(
                f"must have no settings but :init={'|'.join(INITS)}, :groups=8 and :rows=11+14 after a kind of "
                f"DySample, got {option!r} in {text!r}"
            )
        layer[name] = read(value)
    return Arm(text, kind, layer)


def slug(name: str) -> str:
    """The name of an arm as it may stand in the name of a file on every system.

    Example:
        >>> slug("dysample-s+:init=nearest:rows=11+14")
        'dysample-splus_init-nearest_rows-11plus14'
    """
    return name.replace("+", "plus").replace(":", "_").replace("=", "-")


def upsampling_rows(model: dict[str, Any]) -> list[int]:
    """The rows of a parsed model YAML that upsample as stock models do."""
    return [i for i, row in enumerate([*model["backbone"], *model["head"]]) if row[2] == UPSAMPLE]


def with_arm(model: dict[str, Any], arm: Arm) -> dict[str, Any]:
    """The parsed YAML of a stock model with an arm's upsampling in it.

    Raises:
        ValueError: If the model has no row that upsamples, or the arm's settings do not fit.
    """
    rows = upsampling_rows(model)
    if not rows:
        raise ValueError(f"{model.get('yaml_file', 'the model')} has no {UPSAMPLE} row to compare upsampling in")
    if arm.kind not in STOCK:
        return convert_rows(model, **arm.layer)[0]
    changed = [list(row) for row in (*model["backbone"], *model["head"])]
    for i in rows:
        changed[i][3] = [*changed[i][3][:2], arm.kind]
    split = len(model["backbone"])
    return {**model, "backbone": changed[:split], "head": changed[split:]}
