"""What a row of a model YAML sets stays set: Ultralytics builds the model again from it in every training."""

import inspect
import json

import pytest
import yaml

from yolov10_dysample.dysample import DySample

#: Every argument of a row, none at its default.
ROW = {"scale": 4, "style": "pl", "groups": 2, "dyscope": True, "init": "nearest"}
MODEL = {
    "nc": 10,
    "scales": {"n": [1.0, 1.0, 1024]},
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],  # 1-P2/4
        [-1, 1, "Conv", [64, 5, 4]],  # 2-P4/16
    ],
    "head": [
        [-1, 1, "DySample", list(ROW.values())],  # 3
        [[-1, 1], 1, "Concat", [1]],
        [-1, 1, "Conv", [32, 3, 1]],
        [[5, 2], 1, "Detect", ["nc"]],
    ],
}
TRAIN_TWICE = """
import json
from ultralytics import YOLO

def train(model, name):
    model = YOLO(model)
    settings = dict(imgsz=64, epochs=1, batch=8, workers=0, plots=False, val=False, deterministic=False)
    model.train(data={data!r}, project={project!r}, name=name, **settings)
    return model.trainer.best

def settings(checkpoint):
    layer = YOLO(checkpoint).model.model[3]
    return [{{name: getattr(layer, name) for name in {names!r}}}, str(layer)]

first = train({model!r}, "first")
second = train(first, "second")
print(json.dumps([settings(first), settings(second)]))
"""


@pytest.mark.slow
def test_every_setting_of_a_row_is_still_there_after_training_on_from_best_pt(warm_shell, digits, tmp_path):
    defaults = {name: p.default for name, p in inspect.signature(DySample).parameters.items() if name != "in_channels"}
    assert list(ROW) == list(defaults)
    assert not any(ROW[name] == default for name, default in defaults.items())

    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(MODEL))
    names = ["in_channels", *ROW]
    code = TRAIN_TWICE.format(data=str(digits), project=str(tmp_path), model=str(file), names=names)
    (tmp_path / "script.py").write_text(code)
    output = warm_shell("python script.py", cwd=tmp_path)

    for settings, shown in json.loads(output.splitlines()[-1]):
        assert settings == {"in_channels": 64, **ROW}
        assert "64, scale=4, style='pl', groups=2, dyscope=True, init='nearest'" in shown
