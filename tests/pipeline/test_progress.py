import io
from collections import Counter, OrderedDict

import pytest
from rich.console import Console

from pipeline.progress import Progress, plain_line
from pipeline.runner import RunState, StageCount


def state(num_inputs: int | None = 10, *, elapsed_s: float = 10.0) -> RunState:
    import time

    stages = OrderedDict(
        fetch=StageCount(done=4, rows=8, busy_s=4.0, reasons=Counter(truncated=1)),
        draw=StageCount(waiting=4, running=2, done=2, rows=2, busy_s=16.0),
    )
    return RunState(stages, num_inputs, num_finished=2, started=time.monotonic() - elapsed_s)


def test_a_line_tells_counts_reasons_and_the_time_left() -> None:
    # Left: 6 to fetch at 1 s; 6 drawings in hand and 2 a fetch, so 12 more, at 8 s; two workers busy.
    line = plain_line(state())
    assert "2/10 inputs" in line
    assert "fetch 4 [truncated 1]" in line
    assert "draw 2 (+6)" in line
    assert "about 75 s left" in line


def test_no_time_is_promised_before_anything_is_known() -> None:
    assert "left" not in plain_line(state(num_inputs=None))


def test_a_log_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("build", console=Console(file=io.StringIO(), force_terminal=False)) as progress:
        progress.update(state())
        progress.update(state())  # too soon to say more
    assert capsys.readouterr().err.count("build: 2/10 inputs") == 1


def test_a_terminal_gets_a_table() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Progress("build", console=console) as progress:
        progress.update(state())
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "turned away" in shown
    assert "truncated 1" in shown
    assert "2/10 inputs finished" in shown


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("build", quiet=True) as progress:
        progress.update(state())
    assert capsys.readouterr().err == ""
