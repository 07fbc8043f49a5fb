"""Shows a record of `yolov10-dysample benchmark` again: draws the plot beside it, and writes docs/speed.md and the
README's summary, and what is known of GPUs. It measures nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.speed_plot import draw
from yolov10_dysample.study.speed_report import terminal, with_gpu_section, with_section, with_summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path, nargs="?", default=Path("results/speed.json"), help="(%(default)s)")
    parser.add_argument("--docs", action="store_true", help="write docs/speed.md and the README's summary")
    options = parser.parse_args()
    record = json.loads(options.record.read_text())
    if options.docs:
        for document, write_into in ((Path("docs/speed.md"), with_section), (Path("README.md"), with_summary)):
            write_whole(document, write_into(document.read_text(encoding="utf-8"), record).encode())
        document, gpu = Path("docs/speed.md"), Path("results/gpu.json")
        found = json.loads(gpu.read_text()) if gpu.is_file() else None
        write_whole(document, with_gpu_section(document.read_text(encoding="utf-8"), found).encode())
    png = draw(record)
    if png:
        write_whole(options.record.with_suffix(".png"), png)
    print(terminal(record))


if __name__ == "__main__":
    main()
