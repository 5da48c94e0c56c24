"""The captioner, on a model of the true layout: `save_pretrained` of a tiny LLaVA with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curate.captions.video_language import VideoLanguage, load, view_to_show
from pipeline.cameras import look_at_origin
from pipeline.cli import main
from pipeline.media import encode_strip, strip_name
from pipeline.records import Caption, Clip, Rejected
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.conftest import REPOSITORY
from tests.shards.toys import filled, shape_frames

SIZE_PX, PATCH_PX, NUM_FRAMES = 28, 14, 6
WORDS = ["a", "red", "fox", "walks", "over", "there", "and", "back", "it", "is", "small", "one", "two", "three", "four"]
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %} :"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub has them: config, safetensors, tokenizer, picture processor, chat template."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    names = ["<pad>", "<s>", "</s>", "<unk>", "<image>", ":", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="left",
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIZE_PX}, crop_size={"height": SIZE_PX, "width": SIZE_PX})
    processor = LlavaProcessor(
        image_processor=pictures, tokenizer=fast, patch_size=PATCH_PX, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE_PX,
        patch_size=PATCH_PX, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(names), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    network = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=4))
    with torch.no_grad():  # large enough that what is seen decides what is said
        for parameter in network.parameters():
            parameter.mul_(12.0) if parameter.dim() > 1 else None
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def clips(store: Store) -> list[Clip]:
    """Two clips of two views that show different things."""
    made = []
    for number in range(2):
        clip_id = f"c{number}" + "0" * 14
        folder = f"clips/{clip_id[:2]}/{clip_id}"
        for view in range(2):
            store.write_bytes(
                f"{folder}/{strip_name(view)}", encode_strip(shape_frames(10 * number + view, NUM_FRAMES, 32))
            )
        c2w = np.stack([look_at_origin(azimuth, 10.0, 3.0) for azimuth in (180.0, 5.0)])
        made.append(
            filled(
                Clip, clip_id=clip_id, num_views=2, num_frames=NUM_FRAMES, num_camera_frames=1, width=32, height=32,
                view_names=("view_00", "view_01"), c2w=tuple(c2w.ravel().tolist()), folder=folder,
                intrinsics=(1.0, 1.0, 1.0, 1.0), world_centre=(0.0, 0.0, 0.0),
            )
        )  # fmt: skip
    Tables(store).write(Clip, "toys", made, made_by="toys@1", made_from="")
    return made


def test_the_model_sees_the_frames_and_answers_the_same_each_time(model: Path, clips: list[Clip], store: Store) -> None:
    stage = VideoLanguage(data=store.root, model=str(model), num_frames=4, max_new_tokens=8)
    answers = [next(stage.process(clip)) for clip in clips]
    assert all(isinstance(answer, Caption) for answer in answers)
    texts = [answer.text for answer in answers if isinstance(answer, Caption)]
    assert texts == [row.text for clip in clips for row in stage.process(clip) if isinstance(row, Caption)]
    assert texts[0] != texts[1], "what is said depends on what is seen"
    assert all(word in {*WORDS, ":"} for text in texts for word in text.split()), "the question is not repeated"
    assert {answer.source for answer in answers if isinstance(answer, Caption)} == {f"tiny-llava@{stage.settings_id}"}


def test_each_frame_is_a_picture_of_the_question(
    model: Path, clips: list[Clip], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(str(model), "main")
    asked = {}

    def generate(**inputs: object) -> object:
        asked.update(inputs)
        return inputs["input_ids"]

    monkeypatch.setattr(loaded.model, "generate", generate)
    stage = VideoLanguage(data=store.root, model=str(model), num_frames=3)
    (row,) = stage.process(clips[0])
    assert isinstance(row, Rejected)
    assert row.reason == "no_words"
    assert asked["pixel_values"].shape == (3, 3, SIZE_PX, SIZE_PX)  # type: ignore[attr-defined]
    assert (asked["input_ids"] == 4).sum() == 3 * (SIZE_PX // PATCH_PX) ** 2  # type: ignore[attr-defined]


def test_the_command_captions_every_clip_once(model: Path, clips: list[Clip], store: Store) -> None:
    command = ["caption", "--model", str(model), "--max_new_tokens", "5", "--data", store.root, "--quiet", "true"]
    assert main(command) == 0
    first = Tables(store).rows(Caption)
    assert [row.clip_id for row in first] == sorted(clip.clip_id for clip in clips)
    assert main(command) == 0
    assert Tables(store).rows(Caption) == first


def test_the_view_nearest_the_front_is_shown(clips: list[Clip]) -> None:
    assert view_to_show(clips[0]) == 1


@pytest.mark.parametrize("how", ["absent", "no weights", "pickle", "own code", "no template"])
def test_a_model_that_cannot_be_used_is_said_so(how: str, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if how != "absent":
        folder.mkdir()
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    if how in ("no weights", "pickle"):
        (folder / "model.safetensors").unlink()
    if how == "pickle":
        (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    if how == "own code":
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "model_type": "ours",
            "auto_map": {"AutoModelForImageTextToText": "ours.Model", "AutoConfig": "ours.C"},
        }
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "ours.py").write_text("raise SystemExit('code of the model was run')")
    if how == "no template":
        (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded|no chat template"):
        load(str(folder), "main")


def test_nothing_but_the_captioner_loads_torch() -> None:
    code = (
        "import sys, curate.captions.__main__, ingest.__main__, curate.__main__, shards.__main__, pipeline.build; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_that_cannot_be_are_refused(store: Store) -> None:
    for wrong in ({"model": ""}, {"model": "a", "prompt": " "}, {"model": "a", "num_frames": 0}):
        with pytest.raises(ValueError, match=r"must|need"):
            VideoLanguage(data=store.root, **wrong)  # type: ignore[arg-type]
