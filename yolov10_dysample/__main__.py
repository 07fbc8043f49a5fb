"""``python -m yolov10_dysample``: the command ``yolov10-dysample``."""

import sys

from yolov10_dysample.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
