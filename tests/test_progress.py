"""How far a measurement is, as it is told on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from yolov10_dysample.study import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_that_is_done_is_a_line_and_leaves_its_bar_to_the_next(terminal, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=80, height=8, color_system=None)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with progress.Reporter() as report:
        for stage in range(20):
            report(f"stage {stage}", 1, 2)
            assert [task.description for task in report._progress.tasks] == [f"stage {stage}"] * terminal
            report(f"stage {stage}", 2, 2)
    assert all(f" stage {stage}\n" in screen.getvalue() for stage in range(20))
