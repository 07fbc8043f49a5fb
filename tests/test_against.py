"""The script that compares this checkout with another revision: it must see what differs, and name what is neither."""

import pytest

from scripts.against import ROOT, differences, figures, main, measure, tree


@pytest.mark.slow
def test_of_a_tree_with_other_offsets_the_weights_are_the_same_and_the_numbers_are_not(tmp_path):
    files = []
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        side = tree(str(ROOT), tmp_path / name)
        if name == "before":
            operator = side / "yolov10_dysample/dysample.py"
            code = operator.read_text(encoding="utf-8")
            changed = code.replace("OFFSET_RANGE = 0.25", "OFFSET_RANGE = 0.2")
            assert changed != code
            operator.write_text(changed, encoding="utf-8")
        times, computed = measure(side, imgsz=64, calls=1)
        assert all(value > 0 for value in times.values())
        files.append(computed)
    found = differences(files)
    apart = found["largest difference, of the largest value"]
    assert found["the same initial weights"]
    assert len(apart) == 3
    assert min(apart.values()) > 1e-4, apart


def test_times_are_compared_round_by_round_and_as_ratios_to_stock():
    before = [{"predict": 3, "stock": 2, "training step": 4, "stock's step": 2}] * 2
    after = [{**before[0], "predict": 6}, {**before[0], "predict": 6, "stock": 4}]
    found = figures(before, after)
    assert found["predict"]["to stock, after"] == {"median": 2.25, "q1": 1.875, "q3": 2.625}
    assert found["predict"]["after to before"] == {"median": 1.5, "q1": 1.25, "q3": 1.75}
    assert found["training step"]["after to before"]["median"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-revision"], "before must be a git revision or the folder of a checkout, got 'no-such-revision': "),
        (["tests"], "before must be a git revision or the folder of a checkout, got 'tests': "),
        (
            ["HEAD", "--rounds", "0"],
            "--rounds and --calls must be at least 1 and --imgsz at least 64, got 0, 9 and 640",
        ),
    ],
)
def test_what_cannot_be_compared_is_named_and_nothing_is_written(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--out", str(tmp_path / "record.json")])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
