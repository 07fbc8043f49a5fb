"""``python -m yolov10_dysample``: the command ``yolov10-dysample``."""

import sys

from yolov10_dysample.cli import main

if __name__ == "__main__":
    sys.exit(main())
