"""The command line ``yolov10-dysample``: finds the command, and turns what it raises into one line and a status.

It must never show a traceback for what a user typed, and must not load torch or Ultralytics by itself.
"""

from __future__ import annotations

import os
import sys

from yolov10_dysample.commands import compare
from yolov10_dysample.commands.keys import PROGRAM, Command, UsageError, nearest
from yolov10_dysample.version import __version__

COMMANDS: dict[str, Command] = {command.name: command for command in (compare.COMMAND,)}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit status: 0, 2 for what cannot be done, or the command's own."""
    name, *words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name not in COMMANDS:
        return _refused("", f"there is no command {name!r}{nearest(name, COMMANDS)}")
    command = COMMANDS[name]
    if {"-h", "--help"} & set(words):
        print(command.help())
        return 0
    try:
        return command.run(command.values(words))
    except UsageError as error:
        return _refused(f" {name}", str(error))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _refused(command: str, reason: str) -> int:
    line = " ".join(reason.split())
    print(f"{PROGRAM}{command}: {line} (see {PROGRAM}{command} --help)", file=sys.stderr)
    return 2


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {command.name:{width}}{command.summary}" for command in COMMANDS.values())
    return f"""\
usage: {PROGRAM} {" | ".join(COMMANDS)} [key=value ...]

DySample upsampling for Ultralytics models. Training, validation, prediction and export need none of these commands:
name a model with -dysample at the end of a stock name in any `yolo` command, from any folder, such as
yolo detect train model=yolov10n-dysample.yaml data=coco8.yaml

commands:
{commands}

`{PROGRAM} COMMAND --help` has its keys and examples."""
