"""The arms of a comparison: ways to upsample, by name, and what each of them makes of a stock model.

An arm changes the upsampling rows of a model, and how their offsets learn; it must never change anything else, nor
leave in the weights that are kept what a plain DySample is not, but for guidance, which is more than one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from yolov10_dysample.convert import UPSAMPLE, convert_rows
from yolov10_dysample.dysample import INITS, VARIANTS, DySample

__all__ = [
    "BILINEAR",
    "KINDS",
    "NEAREST",
    "STOCK",
    "Arm",
    "fold_rates",
    "freeze_setting",
    "parse_arm",
    "set_rate",
    "upsampling_rows",
    "with_arm",
]

NEAREST, BILINEAR = "nearest", "bilinear"
STOCK = (NEAREST, BILINEAR)
KINDS = (*STOCK, *VARIANTS)

#: Settings that a DySample arm may have after its name: what their text looks like, and what it means.
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "init": ("|".join(INITS), str),
    "groups": (r"\d+", int),
    "rows": (r"\d+(\+\d+)*", lambda text: sorted({int(row) for row in text.split("+")})),
    "frozen": ("", lambda _: True),
    "guided": ("", lambda _: True),
    "rate": (r"\d+(\.\d+)?", float),
}


class Arm(NamedTuple):
    """One way to upsample.

    Attributes:
        name (str): As it is printed and recorded, in one way for each arm: ``nearest``, ``dysample+`` or
            ``dysample:groups=8:rows=11+14``.
        kind (str): One of :data:`KINDS`.
        layer (dict): Arguments of :func:`~yolov10_dysample.convert.convert_rows` that make it; for stock kinds none.
        frozen (bool): Whether the offsets stay as they start: DySample's cost and start without its learning.
        rate (float): How many times as fast as other weights the offsets learn.
        guided (bool): Whether the lateral map has a say in the offsets (:mod:`~yolov10_dysample.study.guidance`).
    """

    name: str
    kind: str
    layer: dict[str, Any]
    frozen: bool = False
    rate: float = 1.0
    guided: bool = False


def parse_arm(text: str) -> Arm:
    """The arm of a name.

    Raises:
        ValueError: If there is none of that name.

    Example:
        >>> arm = parse_arm("dysample:rows=14+11:groups=4:init=nearest")
        >>> arm.layer["rows"], arm.name
        ([11, 14], 'dysample:init=nearest:rows=11+14')
    """
    kind, *options = text.split(":")
    if kind not in KINDS:
        raise ValueError(f"must be some of {', '.join(KINDS)}, got {kind!r}")
    names = [option.partition("=")[0] for option in options]
    if len(set(names)) < len(names):
        raise ValueError(f"must have every setting once, got {text!r}")
    layer: dict[str, Any] = dict(VARIANTS.get(kind, {}))
    for option in options:
        name, equals, value = option.partition("=")
        pattern, read = _OPTIONS.get(name, ("", str))
        fits = re.fullmatch(pattern, value) and bool(equals) is bool(pattern)
        if kind in STOCK or name not in _OPTIONS or not fits:
            raise ValueError(
                f"must have no settings but :init={'|'.join(INITS)}, :groups=8, :rows=11+14, :frozen, :guided and "
                f":rate=0.1 after a kind of DySample, got {option!r} in {text!r}"
            )
        layer[name] = read(value)
    learning: dict[str, Any] = {name: layer.pop(name) for name in ("frozen", "rate", "guided") if name in layer}
    arm = Arm(_name(kind, {**layer, **learning}), kind, layer, **learning)
    if arm.frozen and arm.guided:
        raise ValueError(f"must have offsets that are :frozen or :guided, not both, got {text!r}")
    if arm.rate <= 0 or (arm.frozen and arm.rate != 1):
        raise ValueError(f"must have a :rate above 0, and none where offsets are :frozen, got {text!r}")
    return arm


def _name(kind: str, settings: dict[str, Any]) -> str:
    """One name for each arm: settings that are the kind's own are left out, the others are in one order."""
    own = {"init": INITS[0], "rate": 1.0, **VARIANTS.get(kind, {})}
    parts = [kind]
    for name in _OPTIONS:
        value = settings.get(name, own.get(name))
        if value is True:
            parts.append(name)
        elif value != own.get(name):
            if name == "rate":
                value = np.format_float_positional(value, trim="-")
            parts.append(f"{name}={'+'.join(map(str, value)) if name == 'rows' else value}")
    return ":".join(parts)


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


def freeze_setting(model: dict[str, Any], setting: int | list[int | str] | None) -> list[int | str]:
    """Ultralytics' ``freeze`` with the offsets of a parsed model YAML's DySample rows besides what was frozen before.

    Example:
        >>> freeze_setting({"backbone": [[-1, 1, "Conv", [64]]], "head": [[-1, 1, "DySample", []]]}, 1)
        [0, '1.offset', '1.scope']
    """
    before = list(range(setting)) if isinstance(setting, int) else list(setting or ())
    rows = [i for i, row in enumerate([*model["backbone"], *model["head"]]) if row[2] == DySample.__name__]
    return [*before, *(f"{row}.{part}" for row in rows for part in ("offset", "scope"))]


class _RatedConv2d(nn.Conv2d):
    """A convolution whose weights are ``rate`` times its parameters, so that a step of Adam moves them ``rate`` as far.

    It is within the layer, not in the optimiser: what resumes a training or runs it on several GPUs knows only weights.
    """

    rate: float

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.rate * self.bias
        return self._conv_forward(x, self.rate * self.weight, bias)


def set_rate(network: nn.Module, rate: float) -> None:
    """Let the offsets of all DySample layers learn at another rate, from the same start.

    Under SGD, whose steps grow with the gradient, it is the square of ``rate``.
    """
    for layer in [part for one in network.modules() if isinstance(one, DySample) for part in one.children()]:
        layer.__class__, layer.rate = _RatedConv2d, rate  # type: ignore[assignment]
        _multiply(layer, 1 / rate)


def fold_rates(network: nn.Module) -> None:
    """Make plain layers of those of :func:`set_rate`, with the same outputs.

    Example:
        >>> layer = DySample(8)
        >>> x, offset = torch.rand(1, 8, 4, 4), layer.offset.weight.clone()
        >>> set_rate(layer, 4.0)
        >>> torch.equal(layer.offset.weight, offset / 4), type(layer.offset) is nn.Conv2d
        (True, False)
        >>> fold_rates(layer)
        >>> torch.equal(layer.offset.weight, offset), type(layer.offset) is nn.Conv2d
        (True, True)
    """
    for layer in network.modules():
        if isinstance(layer, _RatedConv2d):
            _multiply(layer, layer.rate)
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]
            del layer.rate


@torch.no_grad()
def _multiply(layer: nn.Module, factor: float) -> None:
    for parameter in layer.parameters():
        parameter.mul_(factor)
