"""The command ``yolov10-dysample compare``, with the same words, from a checkout."""

import sys

from yolov10_dysample.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
