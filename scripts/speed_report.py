"""Shows a record of `yolov10-dysample benchmark` again: draws the plot beside it, writes a document's section."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.speed_plot import draw
from yolov10_dysample.study.speed_report import terminal, with_section


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path, nargs="?", default=Path("results/speed.json"), help="(%(default)s)")
    parser.add_argument("--readme", type=Path, help="write the section into this document, between its markers")
    options = parser.parse_args()
    record = json.loads(options.record.read_text())
    if options.readme:
        options.readme.write_text(with_section(options.readme.read_text(), record))
    png = draw(record)
    if png:
        write_whole(options.record.with_suffix(".png"), png)
    print(terminal(record))


if __name__ == "__main__":
    main()
