"""The ``key=value`` arguments of every ``yolov10-dysample`` command: one table a command, one way to read it.

It knows the standard library only, and must never let a command begin with an argument that was not understood.
"""

from __future__ import annotations

import difflib
import math
import os
import shlex
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "PROGRAM",
    "REINSTALL",
    "Command",
    "Key",
    "UsageError",
    "flag",
    "home",
    "nearest",
    "number",
    "one_of",
    "path",
    "several",
    "whole",
]

PROGRAM = "yolov10-dysample"
#: What brings every file of this package back. Without --no-deps, pip would install torch again, too.
REINSTALL = "pip install --force-reinstall --no-deps . in the clone (or the wheel in place of the dot)"


class UsageError(ValueError):
    """What was asked for cannot be done; the message is one line: the rule, the value and the fix."""


@dataclass(frozen=True)
class Key:
    """One ``key=value`` argument of a command.

    Attributes:
        name (str): The key.
        help (str): What it means, in a few words; its default is written in the words as well.
        parse (Callable[[str], Any]): Makes the value of its text; raises ``ValueError`` with a rule that begins with
            "must", such as "must be a whole number, got 'x'".
        default (Any): The value if the key is not given.
        required (bool): Whether it has to be given.
        example (str): A value to show where the key is missing.
    """

    name: str
    help: str
    parse: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    example: str = ""


@dataclass(frozen=True)
class Command:
    """A command: its words, its keys, and what it does.

    Attributes:
        name (str): The word after ``yolov10-dysample``.
        summary (str): What it does, in one line.
        description (str): What it does, in a paragraph.
        keys (tuple[Key, ...]): All keys it takes.
        examples (str): Command lines that work.
        run (Callable[[dict], int]): Takes the values by key, returns the exit status; raises :class:`UsageError`.
        other (Callable[[str, str], Any] | None): Takes key and text of a key that is not in the table, such as a
            training setting, and returns its value or raises :class:`UsageError`; the values are in ``"settings"``.
        status (str): What the exit status says.
    """

    name: str
    summary: str
    description: str
    keys: tuple[Key, ...]
    examples: str
    run: Callable[[dict[str, Any]], int]
    other: Callable[[str, str], Any] | None = None
    status: str = "The exit status is 0, or 2 if nothing was written; the reason is then one line on stderr."

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """The value of every key, from the words behind the command.

        Raises:
            UsageError: If a word is not ``key=value``, a key is not known, given twice or missing, or a value does not
                fit.

        Example:
            >>> command = Command("plot", "", "", (Key("imgsz", "size", whole(32), 640),), "", lambda values: 0)
            >>> command.values([]), command.values(["imgsz=320"])
            ({'imgsz': 640}, {'imgsz': 320})
            >>> command.values(["imgs=320"])
            Traceback (most recent call last):
            ...
            yolov10_dysample.commands.keys.UsageError: there is no key 'imgs'; did you mean imgsz?
        """
        known = {key.name: key for key in self.keys}
        given: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        for word in words:
            if not _is_key_value(word):
                raise UsageError(f"arguments are key=value, got {word!r}{self._hint(words)}")
            name, _, text = word.partition("=")
            if name in given or name in settings:
                raise UsageError(f"{name} is given twice, the second time as {word!r}")
            if name in known:
                given[name] = _parsed(known[name], text)
            elif self.other:
                settings[name] = self.other(name, text)
            else:
                raise UsageError(f"there is no key {name!r}{nearest(name, known)}")
        for key in self.keys:
            if key.required and key.name not in given:
                raise UsageError(f"{key.name} is missing; write {key.name}={key.example}")
        defaults = {key.name: key.default for key in self.keys}
        return {**defaults, **given, **({"settings": settings} if self.other else {})}

    def help(self) -> str:
        """What ``--help`` prints."""
        usage = f"usage: {' '.join([PROGRAM, self.name, *self._required()])}{' [key=value ...]' if self.keys else ''}"
        width = max((len(key.name) for key in self.keys), default=0) + 2
        layout: dict[str, Any] = {"width": 118, "subsequent_indent": " " * (width + 2), "break_on_hyphens": False}
        wrapped = [textwrap.fill(f"  {key.name:{width}}{key.help}", **layout) for key in self.keys]
        parts = [usage, textwrap.fill(" ".join(self.description.split()), 118)]
        if wrapped:
            parts.append("\n".join(["keys:", *wrapped]))
        parts += ["examples:\n" + textwrap.indent(textwrap.dedent(self.examples).strip(), "  ")]
        parts.append(textwrap.fill(self.status, 118))
        return "\n\n".join(parts)

    def _required(self) -> list[str]:
        return [f"{key.name}={key.example}" for key in self.keys if key.required]

    def _hint(self, words: Sequence[str]) -> str:
        """What to write instead of words of which some are not ``key=value``."""
        written = _from_options(self.keys, words)
        try:
            fits = all(map(_is_key_value, written)) and bool(self.values(written))
        except UsageError:
            fits = False
        call = [PROGRAM, self.name, *(written if fits else self._required())]
        return f"; write {shlex.join(call)}" if self.keys else ""


def _is_key_value(word: str) -> bool:
    name, equals, text = word.partition("=")
    return bool(name and equals and text) and not word.startswith("-")


def _from_options(keys: Sequence[Key], words: Sequence[str]) -> list[str]:
    """What a command line with options such as ``--init nearest`` is in the form ``key=value``, as far as it is clear.

    Example:
        >>> keys = Key("model", "", required=True), Key("rows", ""), Key("out", ""), Key("force", "", flag)
        >>> _from_options(keys, ["my.yaml", "--rows", "11", "14", "--force", "-o", "x.yaml"])
        ['model=my.yaml', 'rows=11,14', 'force=True', 'out=x.yaml']
    """
    known = {key.name: key for key in keys}
    required = (key.name for key in keys if key.required)
    given: dict[str, list[str]] = {}
    option = ""  # the one that waits for values
    for word in words:
        name, equals, text = word.lstrip("-").partition("=")
        if equals:
            given[name], option = [text], ""
        elif word.startswith("-"):
            begin = name.replace("-", "_")
            option = min((key for key in known if key.startswith(begin)), key=len, default=name)
            is_flag = option in known and known[option].parse is flag
            given[option], option = (["True"], "") if is_flag else ([], option)
        elif option and (word.isdecimal() or not given[option]):
            given[option].append(word)
        else:
            given[next(required, "")], option = [word], ""
    return [f"{name}={','.join(values)}" for name, values in given.items()]


def _parsed(key: Key, text: str) -> Any:
    try:
        return key.parse(text)
    except ValueError as error:
        raise UsageError(f"{key.name} {error}") from None


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint for a name that is not there: the nearest one, else all of them.

    Example:
        >>> nearest("imgs", ["imgsz", "conf"]), nearest("x", ["imgsz", "conf"])
        ('; did you mean imgsz?', '; there are imgsz, conf')
    """
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}" if names else ""


def whole(least: int, multiple: int = 1, most: float = math.inf) -> Callable[[str], int]:
    """Reads a whole number within limits.

    Example:
        >>> whole(32, multiple=32)("100")
        Traceback (most recent call last):
        ...
        ValueError: must be a multiple of 32, at least 32, got '100'; 96 would do
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most or value % multiple:
            rule = f"a multiple of {multiple}" if multiple > 1 else "a whole number"
            limit = f"{least} to {most}" if most < math.inf else f"at least {least}"
            near = max(least, min((value + multiple // 2) // multiple * multiple, most))
            raise ValueError(f"must be {rule}, {limit}, got {text!r}" + f"; {near} would do" * (multiple > 1))
        return value

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """Reads a number within limits.

    Example:
        >>> number(0, 1)("0.5")
        0.5
    """

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise ValueError(f"must be a number from {least:g} to {most:g}, got {text!r}")
        return value

    return parse


def home(text: str) -> str:
    """Reads what may be a file in the home folder: not every shell writes out the ``~`` behind a ``key=``.

    Example:
        >>> home("yolov10n.yaml"), home("~/best.pt") == os.path.join(os.path.expanduser("~"), "best.pt")
        ('yolov10n.yaml', True)
    """
    return os.path.expanduser(text)


def path(text: str) -> Path:
    """Reads a path; see :func:`home`."""
    return Path(home(text))


def flag(text: str) -> bool:
    """Reads True or False, in any case.

    Example:
        >>> flag("True"), flag("false")
        (True, False)
    """
    if text.lower() not in ("true", "false"):
        raise ValueError(f"must be True or False, got {text!r}")
    return text.lower() == "true"


def one_of(choices: Sequence[str]) -> Callable[[str], str]:
    """Reads one of some words.

    Example:
        >>> one_of(("lp", "pl"))("pl")
        'pl'
    """

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, got {text!r}")
        return text

    return parse


def several(parse: Callable[[str], Any]) -> Callable[[str], list]:
    """Reads values separated by commas, each of them once.

    Example:
        >>> several(whole(0))("11,14,11")
        [11, 14]
    """

    def parse_all(text: str) -> list:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise ValueError(f"must be values with one comma between them, got {text!r}")
        return list(dict.fromkeys(map(parse, parts)))

    return parse_all
