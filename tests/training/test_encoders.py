import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.toys import pictures, tiny_pipeline
from training.encoders import Encoders
from training.model.patches import CosinePatches


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline(folder).save_pretrained(folder)
    return folder


def test_they_encode_as_the_sampling_pipeline_does(folder: Path) -> None:
    pipeline, encoders = tiny_pipeline(folder), Encoders.load(folder)
    with torch.no_grad():
        pairs = [
            (encoders.pictures(pictures()), pipeline.encode_pictures(pictures())),
            (encoders.first_frames(pictures()), pipeline.encode_first_frames(pictures())),
            (encoders.prompts(["a fox"]), pipeline.encode_prompts(["a fox"])),
        ]
    for mine, theirs in pairs:
        # Where weights lie in memory decides the last bit.
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


def test_pictures_may_be_encoded_a_few_at_a_time(folder: Path) -> None:
    encoders, shown = Encoders.load(folder), pictures(items=2, views=3)
    torch.testing.assert_close(encoders.pictures(shown, at_once=4), encoders.pictures(shown), atol=1e-5, rtol=0)


def test_the_image_encoder_may_lie_elsewhere_and_needs_no_settings_beside_it(folder: Path, tmp_path: Path) -> None:
    base, vision = tmp_path / "mvdream", tmp_path / "ip-adapter"
    shutil.copytree(folder, base)
    shutil.move(base / "image_encoder", vision)
    shutil.rmtree(base / "feature_extractor")
    encoders = Encoders.load(base, image_encoder=vision)
    assert torch.equal(encoders.first_frames(pictures()), Encoders.load(folder).first_frames(pictures()))
    with pytest.raises(FileNotFoundError, match="image_encoder"):
        Encoders.load(base)


def test_a_folder_that_holds_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    weights = next((broken / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="holds no AutoencoderKL"):
        Encoders.load(broken)


def test_patches_stand_where_an_autoencoder_stands(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    shutil.rmtree(copy / "vae")
    CosinePatches(patch_px=4, num_frequencies=2).save_pretrained(copy / "vae")
    assert Encoders.load(copy).pictures(pictures()).shape == (1, 4, 6, 2, 2)


def test_the_fingerprint_tells_weights_and_precision_apart_and_nothing_else(folder: Path) -> None:
    encoders = Encoders.load(folder)
    assert Encoders.load(folder).fingerprint() == encoders.fingerprint()
    assert Encoders.load(folder, dtype=torch.bfloat16).fingerprint() != encoders.fingerprint()
    other = Encoders.load(folder).text_encoder
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    assert replace(encoders, text_encoder=other).fingerprint() != encoders.fingerprint()
