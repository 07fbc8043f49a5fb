"""Makes the start of the trainings beside it: a yolov10n-p2 with every one of yolov10n's COCO weights that finds its
place there; what is new is drawn with seed 0.

    python results/compare/explore-p2/start.py "$(python -m scripts.coco_weights)" yolov10n-p2.pt
"""

import sys
from pathlib import Path

import torch
from ultralytics import YOLO

#: Rows that are yolov10n's, and its own numbers of them; and the heads, whose first branch is new.
ROWS = {i: i for i in range(17)} | {23: 17, 25: 19, 26: 20, 28: 22}
HEAD, OWN_HEAD = 29, 23


def origin(name: str) -> str | None:
    """The name of a weight in yolov10n, by that in yolov10n-p2; None if it is new."""
    _, row, rest = name.split(".", 2)
    if int(row) in ROWS:
        return f"model.{ROWS[int(row)]}.{rest}"
    if int(row) != HEAD:
        return None
    part, *others = rest.split(".")
    if part == "dfl":
        return f"model.{OWN_HEAD}.{rest}"
    branch, *others = others
    return f"model.{OWN_HEAD}.{part}.{int(branch) - 1}.{'.'.join(others)}" if int(branch) else None


def main(weights: str, out: str) -> None:
    own = YOLO(weights).model.float()
    torch.manual_seed(0)
    model = YOLO(Path(__file__).with_name("yolov10n-p2.yaml")).model
    state, known = model.state_dict(), own.state_dict()
    taken = {name: known[source] for name in state if (source := origin(name)) in known}
    model.load_state_dict({**state, **taken})
    model.names = own.names
    torch.save({"model": model, "train_args": {}}, out)
    print(f"{out}: {len(taken)} of {len(state)} weights are yolov10n's")


if __name__ == "__main__":
    main(*sys.argv[1:])
