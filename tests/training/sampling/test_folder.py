import json
from pathlib import Path

import pytest
import torch

from tests.training.toys import pictures, scramble, tiny_pipeline
from training.checkpoints import CheckpointError
from training.sampling.folder import PARTS, fingerprint, load_pipeline

SHORT = {"num_frames": 3, "num_inference_steps": 2, "free_init": None, "output_type": "latent", "seeds": [1]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(tmp_path_factory.mktemp("tokenizer")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """The same files, to be spoilt."""
    for path in saved.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(saved)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.relative_to(saved)).write_bytes(path.read_bytes())
    return tmp_path


def test_what_was_saved_samples_the_same(saved: Path, tmp_path: Path) -> None:
    loaded, wanted = load_pipeline(saved), tiny_pipeline(tmp_path)
    for name, value in wanted.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], value)
    assert fingerprint(loaded) == fingerprint(wanted)
    shown = pictures(views=2)
    # Weights that lie elsewhere in memory are summed in another order.
    clips = [pipeline("walks", shown, **SHORT).frames for pipeline in (loaded, wanted)]
    torch.testing.assert_close(*clips, atol=1e-3, rtol=1e-4)


def test_the_fingerprint_knows_weights_precision_and_schedule(saved: Path) -> None:
    pipeline = load_pipeline(saved)
    known = {fingerprint(pipeline)}
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    known.add(fingerprint(pipeline))
    scramble(pipeline.unet.conv_out, 5)
    known.add(fingerprint(pipeline))
    known.add(fingerprint(load_pipeline(saved, compute="bfloat16")))
    assert len(known) == 4


def test_the_index_decides_nothing_about_what_is_loaded(folder: Path) -> None:
    """It could name any class of any library."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vae": ["antigravity", "Geohash"]}))
    assert fingerprint(load_pipeline(folder))


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    (folder / part).rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=part) as caught:
        load_pipeline(folder)
    assert caught.value.reason == "missing"


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "unet/config.json"])
def test_a_damaged_part_is_said_to_be(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:40])
    with pytest.raises(CheckpointError) as caught:
        load_pipeline(folder)
    assert caught.value.reason == "damaged"
    assert str(folder) in str(caught.value)


def test_other_kinds_of_folder_are_told_apart(folder: Path, tmp_path: Path) -> None:
    cases: dict[str, str] = {}

    def told(path: Path) -> str:
        with pytest.raises(CheckpointError) as caught:
            load_pipeline(path)
        cases[caught.value.reason] = str(caught.value)
        return str(caught.value)

    assert "no such folder" in told(tmp_path / "nowhere")
    assert "a file, not a folder" in told(folder / "model_index.json")
    assert "no model_index.json" in told(folder / "unet")
    (folder / "unet" / "checkpoints").mkdir()
    assert "mv4d train export --config" in told(folder / "unet")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    assert "StableDiffusionPipeline" in told(folder)
    (folder / "model_index.json").write_text("[" * 10)
    assert "cannot be read" in told(folder)
    assert set(cases) == {"not_found", "layout", "damaged"}
