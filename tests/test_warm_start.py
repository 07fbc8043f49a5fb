"""A trained stock model, swapped to DySample at its nearest start: the same mAP at first, and it learns from there."""

import json

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from ultralytics import YOLO
from yolov10_dysample import use_dysample

data, weights, folder = sys.argv[1:]
train = dict(data=data, imgsz=128, workers=0, plots=False, val=False, deterministic=False, project=folder)

def score(model):
    box = model.val(data=data, imgsz=128, workers=0, plots=False).box
    return [box.map50, box.map]

def swapped(init):
    return use_dysample(YOLO(weights), init=init)

found = {"stock": score(YOLO(weights)), "nearest": score(swapped("nearest")), "bilinear": score(swapped("bilinear"))}
model = swapped("nearest")
model.save(f"{folder}/swapped.pt")
found["saved"] = score(YOLO(f"{folder}/swapped.pt"))
model.train(epochs=2, nbs=2, warmup_epochs=0, name="tuned", **train)
tuned = YOLO(f"{folder}/tuned/weights/last.pt").model.model
found["learnt"] = [float(tuned[i].offset.weight.abs().max()) for i in (11, 14)]
found["init"] = [tuned[i].init for i in (11, 14)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(warm_shell, stock, photographs, tmp_path_factory):
    """What the script above found."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "script.py").write_text(SCRIPT)
    output = warm_shell(f"python script.py '{photographs}' '{stock}' '{folder}'", cwd=folder)
    return json.loads(output.splitlines()[-1])


def test_map_is_equal_to_four_decimals_before_and_after_the_swap(found):
    assert found["stock"][0] > 0.5, "a model that detects nothing would prove nothing"
    assert found["nearest"] == pytest.approx(found["stock"], abs=5e-5)
    assert found["saved"] == pytest.approx(found["stock"], abs=5e-5)
    assert found["bilinear"] != pytest.approx(found["stock"], abs=5e-5), "this test cannot tell upsamplings apart"


def test_the_offsets_learn_from_there(found):
    assert found["init"] == ["nearest", "nearest"]
    assert min(found["learnt"]) > 1e-4
