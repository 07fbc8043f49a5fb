"""``yolov10-dysample benchmark`` by another name, with the same ``key=value`` arguments."""

import sys

from yolov10_dysample.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
