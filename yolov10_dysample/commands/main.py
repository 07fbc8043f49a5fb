"""The command line ``yolov10-dysample``: finds the command, and turns what it raises into one line and a status.

It must never show a traceback for what a user typed, must not load torch or Ultralytics by itself, and loads no command
but the one that was asked for: ``doctor`` has to run where the others are damaged.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys

try:
    from yolov10_dysample.commands.keys import PROGRAM, REINSTALL, Command, UsageError, nearest
except ImportError as error:  # no command can do without it, doctor neither
    sys.exit(
        f"yolov10-dysample: the installation is damaged ({error}): "
        f"pip install --force-reinstall --no-deps . in the clone (or the wheel in place of the dot)"
    )

#: The modules beside this one that have a ``COMMAND``.
COMMANDS = ("doctor", "convert", "plot", "compare", "benchmark")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status: 0, 2 for what cannot be done, or the command's own.

    Example:
        >>> main(["convert", "model=yolov10n.yaml", "rows=12"])
        2
    """
    if hasattr(sys.stdout, "reconfigure"):  # not every encoding of a Windows terminal has an arrow
        sys.stdout.reconfigure(errors="replace")
    if arguments is None:  # as after Ctrl-C, what a command has started ends with it
        with contextlib.suppress(ValueError):  # in a thread, which gets no signals
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        status = _status(sys.argv[1:] if arguments is None else arguments)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        _close_the_screen()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        _close_the_screen()  # which may be what is full
        return _refused("", f"cannot write: {error}")
    except KeyboardInterrupt:
        return 130
    return status


def _close_the_screen() -> None:
    """Let what is still to be written to it go nowhere, as Python ends, too."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(arguments: list[str]) -> int:
    name, *words = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name == "--version":
        version = getattr(importlib.import_module("yolov10_dysample"), "__version__", "of unknown version")
        print(f"{PROGRAM} {version}")
        return 0
    if name not in COMMANDS:
        return _refused("", f"there is no command {name!r}{nearest(name, COMMANDS)} (see {PROGRAM} --help)")
    try:
        command = _load(name)
    except UsageError as error:
        return _refused(f" {name}", str(error))
    if {"-h", "--help"} & set(words):
        print(command.help())
        return 0
    try:
        values = command.values(words)
    except UsageError as error:
        return _refused(f" {name}", f"{error} (see {PROGRAM} {name} --help)")
    except ImportError as error:  # of a torch or an Ultralytics that is broken, say
        return _refused(f" {name}", str(error))
    try:
        return command.run(values)
    except (UsageError, ImportError) as error:
        return _refused(f" {name}", str(error))


def _load(name: str) -> Command:
    try:
        return importlib.import_module(f"yolov10_dysample.commands.{name}").COMMAND
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the installation is damaged ({error}): {REINSTALL}") from None


def _refused(command: str, reason: str) -> int:
    print(f"{PROGRAM}{command}: {' '.join(reason.split())}", file=sys.stderr)
    return 2


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:{width}}{_summary(name)}" for name in COMMANDS)
    return f"""\
usage: {PROGRAM} {" | ".join(COMMANDS)} [key=value ...]

DySample upsampling for Ultralytics models. Training, validation, prediction and export need none of these commands:
name a model with -dysample at the end of a stock name in any `yolo` command, from any folder, such as

  yolo detect train model=yolov10n-dysample.yaml data=coco8.yaml
  yolo segment train model=yolo11s-seg-dysample.yaml data=coco8-seg.yaml

commands:
{commands}

`{PROGRAM} COMMAND --help` has its keys and examples."""


def _summary(name: str) -> str:
    try:
        return _load(name).summary
    except UsageError as error:
        return str(error)
