import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import reconstruct
from fourd.rendering import rasterization
from tests.fourd.bending_bar import data_root
from tests.training.toys import tiny_pipeline

SMALL = ["--size_px", "32", "--steps", "3", "--every", "2", "--plain_steps", "2", "--set", "num_gaussians=200"]
SMALL += ["--set", "static.steps=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("data"))
    data_root(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline(folder).save_pretrained(folder)
    return str(folder)


def printed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def test_ours_is_held_against_the_plain_rasterizer(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    reconstruct.main(["--data", data, *SMALL])
    result = printed(capsys)
    assert result.keys() == {"name", "value", "unit", "baseline", "goal"}
    assert result["value"] > 0
    assert "3 steps" in result["unit"]
    assert "2 steps timed" in result["baseline"]


def test_the_way_of_a_gpu_ends_with_sds(data: str, pipeline: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--preset", "animate3d", "--sds_steps", "1", "--refine_px", "32", "--pipeline", pipeline]
    reconstruct.main(["--data", data, *SMALL, *options])
    unit = printed(capsys)["unit"]
    assert "1 steps of 4D-SDS" in unit
    assert "preset animate3d" in unit


def test_a_rasterizer_that_draws_something_else_is_noticed(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def darker(*inputs: Any, **options: Any) -> Any:
        colors, alphas, meta = rasterization(*inputs, **options)
        return 0.9 * colors, alphas, meta

    monkeypatch.setattr(reconstruct, "by_tiles", darker)
    with pytest.raises(AssertionError, match="losses differ after step 1"):
        reconstruct.main(["--data", data, *SMALL])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_any_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        reconstruct.main(["--device", "cuda", "--data", str(tmp_path)])
    assert caught.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_pairs_are_spread_over_the_fit_and_over_the_steps_of_a_frame() -> None:
    pairs = reconstruct.Pairs(wanted=32, clock=reconstruct.Clock("cpu"))
    steps = sorted(pairs.steps(1050))
    assert len(steps) == 32
    assert steps[0] >= 1
    assert steps[-1] <= 1050
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 66
    by_part = [sum(low <= step % 70 < low + 14 for step in steps) for low in range(0, 70, 14)]
    assert min(by_part) >= 4, by_part
