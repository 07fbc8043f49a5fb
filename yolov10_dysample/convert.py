"""Model YAML in, model YAML out: swaps the ``nn.Upsample`` rows for DySample rows, parsed or as text.

It knows what a model YAML looks like, but never imports Ultralytics, and never builds a model.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from yolov10_dysample.dysample import INITS, MAX_SCALE, STYLES, DySample, is_whole_number

__all__ = ["UPSAMPLE", "convert_rows", "convert_yaml", "list_rows"]

UPSAMPLE = "nn.Upsample"


def convert_rows(
    model: dict[str, Any],
    *,
    rows: Iterable[int] | None = None,
    style: str = "lp",
    groups: int = 4,
    dyscope: bool = False,
    init: str = "bilinear",
) -> tuple[dict[str, Any], list[int]]:
    """Replace the ``nn.Upsample`` rows of a parsed model YAML by DySample rows. Every row keeps its index.

    Args:
        model (dict): The YAML as Ultralytics reads it, with ``backbone`` and ``head``; it is not changed.
        rows (Iterable[int]): Indices of the rows to replace, counted over backbone and head; None for all.
        style, groups, dyscope, init: As in :class:`~yolov10_dysample.dysample.DySample`; ``scale`` is the row's own.

    Returns:
        tuple[dict, list[int]]: The new model, and the indices of the replaced rows.

    Raises:
        ValueError: If there is nothing to replace, a row of ``rows`` does not upsample, or DySample cannot do what a
            row does (a fraction, a fixed size).

    Example:
        >>> stock = {"backbone": [[-1, 1, "Conv", [64, 3, 2]]], "head": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]]}
        >>> model, rows = convert_rows(stock)
        >>> model["head"], rows
        ([[-1, 1, 'DySample', [2, 'lp', 4]]], [1])
    """
    _check_options(style, groups, dyscope, init)
    where = model.get("yaml_file", "the model") if isinstance(model, dict) else "the model"
    all_rows = list_rows(model, where)
    swapped = _rows_to_swap(all_rows, rows, where)
    tail = [
        style,
        groups,
        *([dyscope] if dyscope or init != "bilinear" else []),
        *([init] if init != "bilinear" else []),
    ]
    for i in swapped:
        source, scale = all_rows[i][0], _scale(all_rows[i], f"row {i} of {where}")
        all_rows[i] = [source, 1, DySample.__name__, [scale, *tail]]
    split = len(model["backbone"])
    return copy.deepcopy({**model, "backbone": all_rows[:split], "head": all_rows[split:]}), swapped


def convert_yaml(
    text: str,
    *,
    rows: Iterable[int] | None = None,
    style: str = "lp",
    groups: int = 4,
    dyscope: bool = False,
    init: str = "bilinear",
) -> str:
    """Do :func:`convert_rows` to the text of a model YAML, keeping its comments and layout.

    Only the end of a row, ``nn.Upsample, [None, 2, "nearest"]``, is rewritten, and the result is parsed to see that it
    says what it should. Where that cannot be done (rows shared by YAML anchors, say), the model is written anew, with a
    comment and a warning that say so.

    Args:
        text (str): The model YAML.
        rows, style, groups, dyscope, init: As in :func:`convert_rows`.

    Raises:
        ValueError: If ``text`` is not YAML, or as :func:`convert_rows`.

    Example:
        >>> stock = '''
        ... backbone:
        ...   - [-1, 1, Conv, [64, 3, 2]]
        ... head:
        ...   - [-1, 1, nn.Upsample, [None, 2, "nearest"]] # 1
        ... '''
        >>> print(convert_yaml(stock, init="nearest").splitlines()[-1])
          - [-1, 1, DySample, [2, lp, 4, False, nearest]] # 1
    """
    try:
        model = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, AttributeError) as error:  # the last of what is no text
        raise ValueError(f"this is not YAML: {' '.join(str(error).split())}") from None
    converted, swapped = convert_rows(model, rows=rows, style=style, groups=groups, dyscope=dyscope, init=init)
    with contextlib.suppress(yaml.YAMLError, KeyError, IndexError, AttributeError):
        edited = _edit(text, converted, swapped)
        if yaml.safe_load(edited) == converted:
            return edited
    message = "the comments and the layout of the original could not be kept"
    warnings.warn(message, stacklevel=2)
    return f"# Converted to DySample; {message}.\n" + yaml.safe_dump(
        converted, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120
    )


def list_rows(model: object, where: str) -> list:
    """The rows of a parsed model YAML, backbone first; ``where`` is what the error calls the model.

    Raises:
        ValueError: If it is not a model YAML.

    Example:
        >>> list_rows({"backbone": [[-1, 1, "Conv", [64, 3, 2]]], "head": []}, "mine.yaml")
        [[-1, 1, 'Conv', [64, 3, 2]]]
    """
    parts = [model.get(part) for part in ("backbone", "head")] if isinstance(model, dict) else []
    rows = [row for part in parts if isinstance(part, list) for row in part]
    if not parts or not all(isinstance(part, list) for part in parts):
        raise ValueError(
            f"{where} is not a model YAML: it needs `backbone` and `head`, lists of rows [from, repeats, module, args]"
        )
    return rows


def _check_options(style: str, groups: int, dyscope: bool, init: str) -> None:
    for name, value, choices in (("style", style, STYLES), ("init", init, INITS)):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    if not is_whole_number(groups) or groups < 1:
        raise ValueError(f"groups must be a whole number of at least 1, got {groups!r}")
    if not isinstance(dyscope, bool):
        raise ValueError(f"dyscope must be True or False, got {dyscope!r}")


def _rows_to_swap(all_rows: list, wanted: Iterable[int] | None, where: str) -> list[int]:
    names = [row[2] if isinstance(row, (list, tuple)) and len(row) == 4 else None for row in all_rows]
    found = [i for i, name in enumerate(names) if name == UPSAMPLE]
    there = f"{UPSAMPLE} is in {_listed(found)}" if found else f"there is no {UPSAMPLE} row"
    already = [i for i, name in enumerate(names) if name == DySample.__name__]
    there += f", and DySample already in {_listed(already)}" if already else ""
    if wanted is None:
        if not found:
            kinds = ", ".join(dict.fromkeys(str(name) for name in names if name))
            raise ValueError(f"nothing to swap in {where}: {there}; its {len(names)} rows are {kinds or 'no layers'}")
        return found
    no_list = f"rows must be a list of row indices, got {wanted!r}: {there}"
    if isinstance(wanted, (str, bytes, Mapping)):  # of which list() would make letters, bytes or keys
        raise ValueError(no_list)
    try:
        chosen = list(dict.fromkeys(wanted))
    except TypeError:
        raise ValueError(no_list) from None
    if not chosen:
        raise ValueError(f"rows must name at least one row of {where}: {there}")
    for i in chosen:
        if not is_whole_number(i) or not 0 <= i < len(names):
            raise ValueError(f"rows must be indices from 0 to {len(names) - 1} in {where}, got {i!r}: {there}")
        if i not in found:
            raise ValueError(f"row {i} of {where} is {names[i]}, not {UPSAMPLE}: {there}")
    return sorted(chosen)


def _listed(indices: list[int]) -> str:
    return f"row{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def _scale(row: list, where: str) -> int:
    """The whole number by which an ``nn.Upsample`` row enlarges both sides."""
    _, repeats, _, arguments = row
    if repeats != 1:
        raise ValueError(f"{where}: only an {UPSAMPLE} with `repeats` 1 can be replaced, got {repeats!r}")
    size, scale = (*arguments, None, None)[:2] if isinstance(arguments, (list, tuple)) else (arguments, None)
    if isinstance(scale, str) and scale.isdecimal():  # Ultralytics reads it as a number, too
        scale = int(scale)
    if size not in (None, "None") or not isinstance(scale, (int, float)) or scale not in range(2, MAX_SCALE + 1):
        raise ValueError(
            f"{where}: DySample upsamples by a whole number from 2 to {MAX_SCALE}, as {UPSAMPLE}, [None, 2, nearest] "
            f"does, got {arguments!r}; name the rows to replace if this one is to stay"
        )
    return int(scale)


def _edit(text: str, converted: dict, swapped: list[int]) -> str:
    """The text with module and arguments of the swapped rows replaced, each at the place where YAML read it."""
    document: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    root = {key.value: value for key, value in document.value}
    nodes = [node for part in ("backbone", "head") for node in root[part].value]
    rows = [*converted["backbone"], *converted["head"]]
    edits = {}
    for i in swapped:
        _, _, module, arguments = nodes[i].value
        edits[module.start_mark.index] = (module.end_mark.index, DySample.__name__)
        edits[arguments.start_mark.index] = (arguments.end_mark.index, f"[{', '.join(map(str, rows[i][3]))}]")
    for start, (end, new) in sorted(edits.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text
