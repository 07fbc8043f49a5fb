"""A DySample row of a model YAML: checked, handed through Ultralytics' parser, and built.

It knows what the parser does with a row's arguments, but never imports Ultralytics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from yolov10_dysample.dysample import MAX_SCALE, DySample
from yolov10_dysample.errors import described

__all__ = [
    "ROW_NAME",
    "ROW_SYNTAX",
    "RowBuilder",
    "RowError",
    "file_of",
    "find_parser_fault",
    "has_dysample_rows",
    "input_channels",
    "with_checked_rows",
]

#: What Ultralytics' parser looks up for a checked DySample row.
ROW_NAME = "_DySampleRow"

#: How a DySample row's arguments may be written in a model YAML.
ROW_SYNTAX = "[], [scale], [scale, style], [scale, style, groups], [.., dyscope] or [.., dyscope, init]"


class RowError(ValueError):
    """A DySample row that cannot be built; the message says which, and what to write instead."""


def has_dysample_rows(model: dict[str, Any]) -> bool:
    """Whether a parsed model YAML has DySample rows."""
    return any(_names_dysample(row) for row in _rows(model))


def file_of(model: dict[str, Any]) -> str:
    """What messages call the file of a parsed model YAML."""
    return model.get("yaml_file") or "the model"


def input_channels(model: dict[str, Any]) -> int:
    """The channels of the image that a parsed model YAML is for; Ultralytics 8.3.0 calls them ``ch``."""
    return model.get("channels") or model.get("ch") or 3


def with_checked_rows(model: dict[str, Any]) -> dict[str, Any]:
    """The parsed model YAML with every DySample row checked, in the form that Ultralytics' parser can build.

    Raises:
        RowError: If a DySample row cannot be built, whatever its input is.
    """
    file = file_of(model)
    rows = [_parser_row(row, i, file) if _names_dysample(row) else row for i, row in enumerate(_rows(model))]
    split = len(model["backbone"])
    return {**model, "backbone": rows[:split], "head": rows[split:]}


def find_parser_fault(parse_model: Callable[..., tuple[nn.Sequential, list[int]]]) -> str | None:
    """What goes wrong when a parser builds checked DySample rows, in one line; None if it gives them their widths.

    It is tried on a model of three rows, each of which reads the four channels of the row before it, the middle one by
    its index. They are DySample rows only, since Ultralytics 8.3.0 writes on the classes of all layers that it builds;
    they have a few hundred weights, and take no random numbers.
    """
    before, by_index = [-1, 1, DySample.__name__, []], [0, 1, DySample.__name__, []]
    model = {"nc": 1, "backbone": [before, by_index, before], "head": []}
    try:
        layers, _ = parse_model(with_checked_rows(model), 4, verbose=False)
        widths = [layer.in_channels for layer in layers if isinstance(layer, DySample)]
    except Exception as error:
        return described(error)
    return None if widths == [4, 4, 4] else f"three rows of 4 channels were built with {widths}"


def _rows(model: dict[str, Any]) -> list:
    return [*model.get("backbone", ()), *model.get("head", ())]


def _names_dysample(row: Any) -> bool:
    if not isinstance(row, (list, tuple)):
        return False
    return DySample.__name__ in (row[2:3] if len(row) == 4 else row[:3])  # or one that lacks a part, to be refused


class _CheckedRow(NamedTuple):
    """A checked DySample row, carried through Ultralytics' parser as one argument."""

    source: int | None
    where: str
    arguments: tuple

    def __repr__(self) -> str:  # shown in Ultralytics' table of layers, after the width
        return ", ".join(map(str, self.arguments)) or "defaults"


class RowBuilder(DySample):
    """What Ultralytics' parser calls for a DySample row; gives back a plain :class:`DySample`.

    A function would do, but for two habits of the parser. While it loads a checkpoint with ``ULTRALYTICS_SAFE_LOAD=1``,
    it refuses whatever is not a subclass of ``nn.Module``; and it prints and stores the name of what it called as the
    layer's type, which is therefore made :class:`DySample`'s below.
    """

    # Not __init__: the layer that checkpoints pickle must be a DySample and no RowBuilder. Python skips __init__ when
    # __new__ gives back an object of another class, so it does not run on the finished layer.
    def __new__(cls, width: int | list[int], row: _CheckedRow) -> DySample:  # type: ignore[misc]
        try:
            layer = DySample(_width_of(row.source, width), *row.arguments)
        except ValueError as error:
            raise RowError(f"{row.where}: {error}") from None
        # Ultralytics 8.3.0 counts the parameters on the class that it called, which is this one, and not on the layer.
        layer.np = sum(parameter.numel() for parameter in layer.parameters())  # type: ignore[assignment]
        return layer


RowBuilder.__module__, RowBuilder.__qualname__ = DySample.__module__, DySample.__qualname__


def _width_of(source: int | None, width: int | list[int]) -> int:
    return width if source is None else width[source]  # type: ignore[index, return-value]


def _parser_row(row: Any, index: int, file: str) -> list:
    """A checked row in the form that Ultralytics' parser builds with the right width.

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
    settings = _CheckedRow(None if source == -1 else source, where, _checked_arguments(arguments, where))
    return [source, repeats, ROW_NAME, ["c2" if source == -1 else "ch", settings]]


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
