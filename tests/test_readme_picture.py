"""The README's picture can be drawn again, and its colours are those of `plot`."""

import io

import numpy as np
import pytest
from PIL import Image, ImageColor
from ultralytics import YOLO

from scripts import readme_picture
from tests.conftest import ROOT
from tests.small_models import picture
from yolov10_dysample import figures


def test_it_shows_layer_11_in_the_colours_of_plot():
    photograph = np.repeat(np.repeat(picture(10, 10), 64, axis=0), 64, axis=1)
    content = readme_picture.readme_picture(YOLO("yolov10n-dysample.yaml"), photograph)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.width) == ("PNG", "P", 1500)
        found = {colour for _, colour in image.convert("RGB").getcolors()}
    assert {ImageColor.getrgb(colour) for colour in figures.COLOURS} <= found


def test_a_model_without_that_layer_is_refused():
    with pytest.raises(ValueError, match=r"yolov10n.yaml has no DySample layer"):
        readme_picture.readme_picture(YOLO("yolov10n.yaml"), picture(640, 640))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "image must be one of 528000, 541000, OSBS_029, SOAP_061 or an image file, got none.png"),
        (["image.png"], "must lie within the photograph of 700 x 650 px, got left=300 top=300; write other --left"),
        (["image.png", "--left=61", "--top=0"], "got left=61 top=0"),
        (["image.png", "--left=0", "--top=-1"], "got left=0 top=-1"),
    ],
)
def test_a_refused_call_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(650, 700)).save("image.png")
    with pytest.raises(SystemExit, match="2"):
        readme_picture.main(["best.pt", arguments[0], "out.png", *arguments[1:]])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_the_picture_of_the_readme_loads_quickly():
    assert (ROOT / "docs/trees.png").stat().st_size <= 250_000
