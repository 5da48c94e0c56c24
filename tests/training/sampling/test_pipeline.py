from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines import free_init_utils
from PIL import Image
from torch import Tensor

from tests.training.toys import pictures, tiny_pipeline
from training.cameras import ring
from training.objective import NoiseSchedule
from training.sampling.free_init import FreeInit
from training.sampling.guidance import Condition, classifier_free
from training.sampling.pipeline import MultiViewVideoPipeline

SHORT: dict[str, Any] = {"num_frames": 4, "num_inference_steps": 3, "free_init": None, "output_type": "latent"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> MultiViewVideoPipeline:
    return tiny_pipeline(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def calls(pipeline: MultiViewVideoPipeline) -> Any:
    """What the network is called with, call by call."""
    seen: list[tuple[Tensor, ...]] = []
    handle = pipeline.unet.register_forward_pre_hook(lambda _, given: seen.append(given))
    yield seen
    handle.remove()


def test_the_first_frame_stays_clean_in_every_call_and_in_the_result(
    pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]
) -> None:
    steps: list[Tensor] = []
    out = pipeline(
        "walks",
        pictures(),
        seeds=[1],
        **{**SHORT, "free_init": FreeInit()},
        on_step=lambda _, latents: steps.append(latents),
    )
    clean = pipeline.encode_pictures(pictures())
    assert out.frames.shape == (1, 4, 4, 4, 4, 4)
    assert torch.equal(out.frames[:, :, 0], clean)
    # Three rounds of three steps, with and without the prompt in one call.
    assert len(calls) == len(steps) == 9
    for given, latents in zip(calls, steps, strict=True):
        assert torch.equal(given[0][:, :, 0], torch.cat([clean, clean]))
        assert torch.equal(latents[:, :, 0], clean)
        assert len(set(given[1].tolist())) == 1
    assert [int(given[1][0]) for given in calls] == [667, 334, 1] * 3


def test_the_default_is_the_published_sampler(
    pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]
) -> None:
    out = pipeline("walks", pictures(views=2), seeds=[1], output_type="latent")
    assert out.frames.shape[2] == 16
    assert [int(given[1][0]) for given in calls] == list(range(961, 0, -40)) * 3
    assert torch.equal(calls[0][4][0], ring(2, elevation_deg=15.0, azimuth_deg=0.0))


def test_a_perfect_network_gives_the_clip_back(tmp_path: Path) -> None:
    """DDIM, whatever the noise: a network that knows the clip leads there in any number of steps."""
    own = tiny_pipeline(tmp_path)
    truth = torch.randn(1, 4, 4, 4, 4, 4)
    kept = own.scheduler.alphas_cumprod

    def knows(_: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        share = kept[given[1]].reshape(-1, 1, 1, 1, 1, 1)
        return (given[0] - share.sqrt() * truth) / (1 - share).sqrt()

    own.unet.register_forward_hook(knows)
    for free_init in (None, FreeInit()):
        out = own("walks", pictures(), seeds=[1], **{**SHORT, "free_init": free_init}).frames
        torch.testing.assert_close(out[:, :, 1:], truth[:, :, 1:], atol=1e-4, rtol=1e-4)


def test_the_whole_loop_equals_one_made_of_diffusers_parts(
    pipeline: MultiViewVideoPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance, DDIM and FreeInit with diffusers' mixin, in its order of axes, from the same noise."""
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(1, 4, 3, 4, 4, 4, generator=generator) for _ in range(3)]
    flat = [noise.flatten(0, 1).transpose(1, 2) for noise in noises]
    fresh = iter(flat[1:])
    monkeypatch.setattr(free_init_utils, "randn_tensor", lambda **_: next(fresh))

    shown, unet = pictures(), pipeline.unet
    text, empty = pipeline.encode_prompts(["walks"]), pipeline.encode_prompts([""])
    image, clean = pipeline.encode_first_frames(shown), pipeline.encode_pictures(shown).flatten(0, 1)[:, :, None]
    mixin = free_init_utils.FreeInitMixin()
    mixin.scheduler = NoiseSchedule().sampler()
    mixin.enable_free_init()
    latents = torch.cat([clean, flat[0]], dim=2)
    with torch.no_grad():
        for number in range(3):
            later, timesteps = mixin._apply_free_init(
                latents[:, :, 1:], number, 3, torch.device("cpu"), torch.float32, generator
            )
            latents = torch.cat([clean, later], dim=2)
            for timestep in timesteps:
                given = latents.transpose(1, 2)[None]
                conditional = unet(given, timestep[None], text, image, ring(4)[None])
                unconditional = unet(given, timestep[None], empty, torch.zeros_like(image), ring(4)[None])
                noise = unconditional + 7.5 * (conditional - unconditional)
                noise = noise.flatten(0, 1).transpose(1, 2)
                latents = mixin.scheduler.step(noise, timestep, latents).prev_sample
                latents = torch.cat([clean, latents[:, :, 1:]], dim=2)

    ours = pipeline("walks", shown, seeds=[5], **{**SHORT, "free_init": FreeInit()}).frames
    torch.testing.assert_close(ours.flatten(0, 1).transpose(1, 2), latents, atol=1e-3, rtol=1e-4)


def test_several_objects_in_a_call_are_the_same_as_one_by_one(
    pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]
) -> None:
    shown = pictures(items=2)
    settings = {**SHORT, "free_init": FreeInit(num_rounds=2)}
    together = pipeline(
        ["walks", "jumps"], shown, seeds=[1, 2], elevation_deg=[15, 30], azimuth_deg=[0, 45], **settings
    ).frames
    # Animate3D would put 8 views on one circle.
    assert torch.equal(calls[0][4], torch.stack([ring(4, 15, 0), ring(4, 30, 45)] * 2))
    alone = pipeline("jumps", shown[1:], seeds=[2], elevation_deg=30, azimuth_deg=45, **settings).frames
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[:1], alone, atol=1e-2)


def test_the_unconditional_half_has_the_negative_prompt_no_image_and_the_cameras(
    pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]
) -> None:
    pipeline("walks", pictures(), negative_prompt="blurry", seeds=[1], **SHORT)
    _, _, text, image, cameras = calls[0]
    assert torch.equal(text[:1], pipeline.encode_prompts(["walks"]))
    assert torch.equal(text[1:], pipeline.encode_prompts(["blurry"]))
    assert torch.equal(image[:1], pipeline.encode_first_frames(pictures()))
    assert not image[1:].any()
    assert torch.equal(cameras[0], cameras[1])


def test_the_prompt_and_the_seed_decide(pipeline: MultiViewVideoPipeline) -> None:
    first = pipeline("walks", pictures(), **SHORT)
    again = pipeline("walks", pictures(), seeds=first.seeds, **SHORT)
    assert torch.equal(first.frames, again.frames)
    assert not torch.allclose(pipeline("jumps", pictures(), seeds=first.seeds, **SHORT).frames, first.frames)
    assert not torch.allclose(pipeline("walks", pictures(), seeds=[0], **SHORT).frames, first.frames)


def test_cameras_can_be_given_as_vectors(pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]) -> None:
    given = torch.stack([torch.cat([ring(1, 10.0, azimuth) for azimuth in (0.0, 20.0, 200.0)])])
    pipeline("walks", pictures(views=3), cameras=given, seeds=[1], **SHORT)
    assert torch.equal(calls[0][4], torch.cat([given, given]))


def test_clip_sees_bytes_not_shares_of_one(pipeline: MultiViewVideoPipeline) -> None:
    """Its image processor divides by 255 whatever it is given: a tensor in 0..1 would come out black."""
    shown = (pictures(size=16) * 255).round() / 255
    from_files = [Image.fromarray(np.uint8(view.permute(1, 2, 0) * 255 + 0.5)) for view in shown[0]]
    prepared = pipeline.feature_extractor(images=from_files, return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = pipeline.image_encoder(prepared).image_embeds
        torch.testing.assert_close(pipeline.encode_first_frames(shown)[0], wanted)
    mean = torch.tensor(pipeline.feature_extractor.image_mean)
    spread = torch.tensor(pipeline.feature_extractor.image_std)
    torch.testing.assert_close(prepared[0], (shown[0, 0] - mean[:, None, None]) / spread[:, None, None])


def test_guidance_is_a_function(pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]) -> None:
    asked: list[int] = []

    def own(predict: Any, with_prompt: Condition, without_prompt: Condition) -> Tensor:
        asked.append(len(predict([with_prompt, without_prompt, with_prompt])))
        return classifier_free(7.5)(predict, with_prompt, without_prompt)

    plain = pipeline("walks", pictures(), seeds=[1], **SHORT).frames
    calls.clear()
    assert torch.equal(pipeline("walks", pictures(), guidance=own, seeds=[1], **SHORT).frames, plain)
    assert asked == [3, 3, 3]
    assert [len(given[0]) for given in calls] == [3, 2] * 3


def test_guidance_of_one_asks_once(pipeline: MultiViewVideoPipeline, calls: list[tuple[Tensor, ...]]) -> None:
    pipeline("walks", pictures(), guidance=1.0, seeds=[1], **SHORT)
    assert [len(given[0]) for given in calls] == [1] * 3
    with pytest.raises(ValueError, match="negative"):
        classifier_free(-1.0)


def test_frames_come_as_tensors_arrays_or_pictures(pipeline: MultiViewVideoPipeline) -> None:
    shown = pictures(views=3)
    clips = {
        kind: pipeline("walks", shown, seeds=[1], **{**SHORT, "output_type": kind}).frames
        for kind in ("pt", "np", "pil")
    }
    assert clips["pt"].shape == (1, 3, 4, 3, 8, 8)
    assert 0.0 <= float(clips["pt"].min()) < float(clips["pt"].max()) <= 1.0
    np.testing.assert_array_equal(clips["np"], clips["pt"].permute(0, 1, 2, 4, 5, 3).numpy())
    assert [len(view) for view in clips["pil"][0]] == [4, 4, 4]
    np.testing.assert_allclose(np.asarray(clips["pil"][0][1][2]) / 255, clips["np"][0, 1, 2], atol=0.5 / 255 + 1e-6)
    latents = pipeline("walks", shown, seeds=[1], **SHORT).frames
    torch.testing.assert_close(pipeline.decode_latents(latents, batch=5), clips["pt"], atol=1e-5, rtol=1e-5)


def test_pictures_need_not_be_square(pipeline: MultiViewVideoPipeline) -> None:
    wide = torch.full((1, 2, 3, 8, 12), 0.5)
    assert pipeline("walks", wide, seeds=[1], **SHORT).frames.shape == (1, 2, 4, 4, 4, 6)


def test_a_v_predicting_model_is_sampled_from_pure_noise(tmp_path: Path) -> None:
    own = tiny_pipeline(tmp_path, NoiseSchedule(prediction="v_prediction", zero_terminal_snr=True))
    out = own("walks", pictures(), seeds=[1], **{**SHORT, "free_init": FreeInit(num_rounds=2)}).frames
    assert bool(torch.isfinite(out).all())


def test_a_saved_folder_gives_the_same_clip(tmp_path: Path, pipeline: MultiViewVideoPipeline) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = MultiViewVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    wanted = pipeline("walks", pictures(), seeds=[1], **SHORT).frames
    assert torch.equal(loaded("walks", pictures(), seeds=[1], **SHORT).frames, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ["a", "b"]}, "2 prompts for 1"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1"),
        ({"seeds": [1, 2]}, "2 seeds for 1"),
        ({"elevation_deg": [1.0, 2.0]}, "2 elevations"),
        ({"cameras": torch.zeros(1, 2, 16)}, "cameras must have the shape"),
        ({"num_frames": 1}, "two frames"),
        ({"num_inference_steps": 0}, "one step"),
        ({"pictures": pictures(size=9)}, "multiples of 2"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline: MultiViewVideoPipeline, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": "walks", "pictures": pictures(), "seeds": [1], **SHORT, **changes})
