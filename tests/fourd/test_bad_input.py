"""Bad input by the real command line: what is said, how it ends, and that nothing is left behind."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import fourd.command
import pipeline.animate
from pipeline.cli import EXIT_FINDINGS, EXIT_USAGE, main
from pipeline.media import strip_name
from pipeline.records import Clip
from pipeline.tables import Tables
from tests.fourd import bending_bar
from tests.fourd.objects.files import chair
from tests.fourd.short_preset import PRESET
from tests.ingest.tiny import glb, triangle_glb
from tests.render.tiny_gltf import TinyGltf
from tests.training.sampling.test_objects import pictures
from tests.training.toys import tiny_pipeline


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files: models, data roots `clip-…`, pipeline folders `net-…`, a preset, pictures."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "short.yaml").write_text(PRESET)
    (root / "in_the_way").write_text("a file")
    pictures(root / "views")
    _models(root)
    _data_roots(root)
    _pipelines(root)
    return root


def _models(root: Path) -> None:
    vertices, faces, _ = bending_bar.bar()
    chair(root / "chair.glb")
    broken = vertices.copy()
    broken[3] = np.nan
    nothing = TinyGltf()
    nothing.node(name="nothing")
    nothing.save(root / "empty.glb")
    _mesh(root / "nan.glb", broken, faces)
    _mesh(root / "lines.glb", vertices, faces, mode=1)
    across = np.linspace(0, 1, 1415)
    x, y = np.meshgrid(across, across)
    corner = (np.arange(1414)[:, None] * 1415 + np.arange(1414)).ravel()
    _mesh(
        root / "two_million.glb",
        np.stack([x, y, x * y], axis=-1).reshape(-1, 3),
        np.stack([corner, corner + 1, corner + 1415], axis=1),
    )
    draco = TinyGltf()
    draco.document["meshes"].append({"primitives": [{
        "attributes": {"POSITION": draco.accessor(vertices, "VEC3")},
        "extensions": {"KHR_draco_mesh_compression": {}},
    }]})  # fmt: skip
    draco.node(mesh=0)
    draco.save(root / "draco.glb")
    (root / "shown").mkdir()
    shutil.copy(root / "nan.glb", root / "shown" / "mesh.glb")
    (root / "cut_off.glb").write_bytes(triangle_glb()[:200])
    (root / "notes.txt").write_text("no model")


def _mesh(path: Path, vertices: np.ndarray, faces: np.ndarray, mode: int = 4) -> None:
    positions, indices = vertices.astype("<f4").tobytes(), faces.astype("<u4").tobytes()
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": len(positions)},
             {"buffer": 0, "byteOffset": len(positions), "byteLength": len(indices)}]  # fmt: skip
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "mode": mode}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": len(vertices), "type": "VEC3",
                       "min": [-1, -1, -1], "max": [1, 1, 1]},
                      {"bufferView": 1, "componentType": 5125, "count": faces.size, "type": "SCALAR"}],
        "bufferViews": views, "buffers": [{"byteLength": len(positions) + len(indices)}],
    }  # fmt: skip
    path.write_bytes(glb(document, positions + indices))


def _data_roots(root: Path) -> None:
    store, clip = bending_bar.data_root(str(root / "clip-good"))
    poses = np.array(clip.c2w).reshape(8, 4, 4)
    skewed = poses.copy()
    skewed[0, 0, 0] += 0.1
    for name, changes in {
        "clip-few-cameras": {"c2w": clip.c2w[:-16]},
        "clip-skewed-cameras": {"c2w": tuple(skewed.flatten())},
        "clip-others-cameras": {"c2w": tuple(np.roll(poses, 2, axis=0).flatten())},
        "clip-more-frames": {"num_frames": 7},
    }.items():
        shutil.copytree(root / "clip-good", root / name)
        tables = Tables(replace(store, root=str(root / name)))
        tables.remove(Clip, lambda made_by, made_from: True)
        tables.write(Clip, "clips", [replace(clip, **changes)], made_by="test@0", made_from="a")  # type: ignore[arg-type]
    for name, view in (("clip-no-input", 2), ("clip-no-held-out", 3)):
        shutil.copytree(root / "clip-good", root / name)
        (root / name / clip.folder / strip_name(view)).unlink()


def _pipelines(root: Path) -> None:
    (root / "tokenizer").mkdir()
    good = root / "net-good"
    tiny_pipeline(root / "tokenizer").save_pretrained(good)
    for name in ("net-other-kind", "net-no-unet", "net-cut-off", "net-other-sizes"):
        shutil.copytree(good, root / name)
    _set(root / "net-other-kind" / "model_index.json", _class_name="StableDiffusionPipeline")
    shutil.rmtree(root / "net-no-unet" / "unet")
    (weights,) = (root / "net-cut-off" / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    _set(root / "net-other-sizes" / "unet" / "config.json", cross_attention_dim=16)
    (root / "net-nothing").mkdir()


def _set(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BASES = {
    "reconstruct": "--data=IN/clip-good --clip=bar0 --preset=IN/short.yaml --quiet=true --out=OUT/x",
    "generate": "--images IN/views --prompt walks --pipeline=IN/net-good --num_frames=3 --num_inference_steps=2 "
    "--free_init.num_rounds=1 --device=cpu --out=OUT/x",
    "view": "--no_open --out=OUT/x.html",
    "object": "--out=OUT/x.glb",
    "convert": "--out=OUT/x.fbx",
    "animate": "--prompt walks --pipeline=IN/net-good --preset=IN/short.yaml --num_frames=3 --num_inference_steps=2 "
    "--still.size_px=24 --still.quality=preview --out=OUT/x",
}
AT_ONCE = [
    ("reconstruct", "--object=IN/empty.glb", "empty.glb: draws no triangle", "empty_mesh"),
    ("reconstruct", "--object=IN/lines.glb", "lines.glb: draws no triangle", "empty_mesh"),
    ("reconstruct", "--object=IN/two_million.glb", "two_million.glb: 2,002,225 vertices", "decimate"),
    ("reconstruct", "--object=IN/nan.glb", "nan.glb: 1 vertices of node 0", "non_finite"),
    ("reconstruct", "--object=IN/cut_off.glb", "cut_off.glb: is no GLB of version 2", "malformed"),
    ("reconstruct", "--object=IN/notes.txt", "notes.txt: is no kind of 3D file", "give a .glb"),
    ("reconstruct", "--object=IN/none.glb", "none.glb", "not_found"),
    ("reconstruct", "--data=IN/clip-few-cameras", "7 cameras do not match 8 views", "cameras"),
    ("reconstruct", "--data=IN/clip-skewed-cameras", "no rigid poses", "render it anew"),
    ("reconstruct", "--data=IN/clip-others-cameras", "of their outline in common", "cameras"),
    ("reconstruct", "--data=IN/clip-no-input", "v02.webp is not in", "frames_missing"),
    ("reconstruct", "--data=IN/clip-no-held-out", "v03.webp is not in", "frames_missing"),
    ("reconstruct", "--data=IN/clip-more-frames", "5 frames for 7 of the pictures", "frames_missing"),
    ("reconstruct", "--data=IN/none", "clip bar0: not in", "no_such_clip"),
    ("reconstruct", "--views=0,99", "asked for views [0, 99]", "no_such_view"),
    ("reconstruct", "--held_out=99", "asked for views [99]", "no_such_view"),
    ("reconstruct", "--held_out=a", "views are numbers by commas, got 'a'", "no_such_view"),
    ("reconstruct", "--device=abacus", "no device 'abacus'", "leave out --device"),
    ("reconstruct", "--device=meta", "cpu or cuda only", "--device meta"),
    ("reconstruct", "--size_px=8000", "MB are free", "a smaller --size_px"),
    ("reconstruct", "--set num_gaussians=2000000000", "MB are free", "fewer Gaussians"),
    ("reconstruct", "--preset=IN/chair.glb", "chair.glb: a preset is a YAML file", "no text"),
    ("reconstruct", "--preset=IN/in_the_way", "in_the_way: a preset is a YAML file", "names and values"),
    ("reconstruct", "--out=IN/in_the_way/x", "in_the_way is no folder", "another --out"),
    ("generate", "--pipeline=IN/net-nothing", "no model_index.json", "save_pretrained"),
    ("generate", "--pipeline=IN/in_the_way", "a file, not a folder", "docs/training.md"),
    ("generate", "--pipeline=IN/net-other-kind", "of the kind StableDiffusionPipeline", "layout"),
    ("generate", "--pipeline=IN/net-no-unet", "no folder unet", "missing"),
    ("generate", "--pipeline=IN/net-cut-off", "diffusion_pytorch_model.safetensors", "anew [damaged]"),
    ("generate", "--pipeline=IN/net-other-sizes", "expected shape", "fetch or export the folder anew"),
    ("generate", "--device=abacus", "--device abacus cannot be used here", "abacus"),
    ("generate", "--images IN/none", "none: there is no such file", "not_found"),
    ("generate", "--images IN/net-nothing", "no PNG, JPEG or WebP picture", "not_found"),
    ("generate", "--size_px=100000", "size_px in 0..4096", "100000"),
    ("generate", "--size_px=512 --num_frames=15", "px at once takes about", "smaller [memory]"),
    ("generate", "--out=IN/in_the_way/x", "in_the_way is no folder", "another --out"),
    ("generate", "CLIP=clip-few-cameras", "7 cameras do not match its 8 views", "cameras"),
    ("generate", "CLIP=clip-skewed-cameras", "no rigid poses", "render it anew"),
    ("generate", "CLIP=clip-no-input", "v02.webp is not there", "render the clip anew"),
    ("generate", "CLIP=clip-more-frames", "does not hold 7 frames", "render the clip anew"),
    ("view", "IN/empty.glb", "empty.glb: draws no triangle", "empty_mesh"),
    ("view", "IN/lines.glb", "lines.glb: draws no triangle", "empty_mesh"),
    ("view", "IN/nan.glb", "nan.glb: 1 vertices", "non_finite"),
    ("view", "IN/shown", "mesh.glb: 1 vertices", "non_finite"),
    ("view", "IN/draco.glb", "draco.glb: compressed by Draco", "mv4d object"),
    ("view", "IN/cut_off.glb", "cut_off.glb is no GLB", "write it anew"),
    ("view", "IN/notes.txt", "notes.txt: the viewer shows", "unsupported"),
    ("view", "IN/none.glb", "none.glb does not exist", ""),
    ("view", "IN/views", "no .glb, no .ply", "give the folder"),
    ("view", "IN/chair.glb --out=IN/views", "views is a folder", "--out"),
    ("view", "IN/chair.glb --out=IN/in_the_way/x.html", "in_the_way is no folder", "another --out"),
    ("object", "IN/none.glb", "none.glb: there is no such file", "check the path"),
    ("object", "IN/views", "views: it is a folder", "check the path"),
    ("object", "IN/chair.glb --out=OUT/x.fbx", "must end in .glb", "mv4d convert"),
    ("object", "IN/chair.glb --out=IN/in_the_way/x.glb", "in_the_way is no folder", "another --out"),
    ("object", "IN/chair.glb --blender.memory_mb=10", "need memory_mb >= 512", ""),
    ("object", "--data=IN/clip-good --clip=bar0", "no clip of this id", "clip-good"),
    ("convert", "IN/none.glb", "none.glb: there is no such file", "check the path"),
    ("convert", "IN/notes.txt", "notes.txt: only a GLB is converted", "mv4d object"),
    ("convert", "IN/chair.glb --out=OUT/x.obj", "cannot write .obj", "usdz"),
    ("convert", "IN/chair.glb --out=IN/in_the_way/x.fbx", "in_the_way is no folder", "another --out"),
    ("animate", "IN/none.glb", "none.glb: there is no such file", ""),
    ("animate", "IN/views", "views: there is no such file", ""),
    ("animate", "IN/two_million.glb", "two_million.glb: 2,002,225 vertices, the limit is 500,000", "decimate"),
    ("animate", "IN/chair.glb --pipeline=IN/net-nothing", "no model_index.json", "save_pretrained"),
    ("animate", "IN/chair.glb --pipeline=IN/net-other-kind", "of the kind StableDiffusionPipeline", "layout"),
    ("animate", "IN/chair.glb --pipeline=IN/net-cut-off", "diffusion_pytorch_model.safetensors", "anew [damaged]"),
    ("animate", "IN/chair.glb --device=abacus", "no device 'abacus'", "leave out --device"),
    ("animate", "IN/chair.glb --still.size_px=25", "25 x 25 px", "--size_px 24"),
    ("animate", "IN/chair.glb --still.size_px=4", "size_px must lie in 8..4096", ""),
    ("animate", "IN/chair.glb --still.size_px=512 --num_frames=15", "MB are free", "smaller"),
    ("animate", "IN/chair.glb --num_frames=1", "num_frames >= 2", ""),
    ("animate", "IN/chair.glb --num_frames=700", "700 frames of 24 px", "fewer frames"),
    ("animate", "IN/chair.glb --num_inference_steps=0", "1 step", ""),
    ("animate", "IN/chair.glb --seed=-1", "0..2^63, got -1", ""),
    ("animate", "IN/chair.glb --preset=best", "no preset 'best'", "cpu"),
    ("animate", "IN/chair.glb --out=IN/in_the_way/x", "in_the_way is no folder", "another --out"),
]
"""Command, options that come after the good ones, and two things that must be said."""
BY_BLENDER = [
    ("object", "IN/empty.glb", "empty.glb: no face to draw", "no_mesh"),
    ("object", "IN/nan.glb", "nan.glb: accessor 0", "non_finite"),
    ("object", "IN/cut_off.glb", "cut_off.glb", "import_failed"),
    ("object", "IN/notes.txt", "notes.txt: no importer", "convert it to .glb"),
    ("object", "IN/chair.glb --animation=Walk", "no animation 'Walk'", "chair.glb"),
    ("convert", "IN/empty.glb", "empty.glb: no face to draw", "no_mesh"),
    ("convert", "IN/nan.glb", "nan.glb: accessor 0", "non_finite"),
    ("convert", "IN/chair.glb --animation=Walk", "no animation 'Walk'", "no_animation"),
    ("animate", "IN/empty.glb", "empty.glb: no face to draw", "no_mesh"),
    ("animate", "IN/nan.glb", "nan.glb: accessor 0", "non_finite"),
    ("animate", "IN/cut_off.glb", "cut_off.glb", "import_failed"),
]


@dataclass
class Commands:
    """Runs commands over the inputs and looks at what they leave behind."""

    inputs: Path
    out: Path
    capsys: pytest.CaptureFixture[str]

    def refuses(self, command: str, options: str, said: str, advice: str) -> None:
        """It ends with a message that has both texts, and changes no file."""
        before = _files(self.inputs)
        assert _run([command, *_words(command, options, self.inputs, self.out)]) in (EXIT_FINDINGS, EXIT_USAGE)
        printed = " ".join(self.capsys.readouterr().err.split())
        for text in (said, advice):
            assert text in printed
        assert not self.out.exists()
        assert _files(self.inputs) == before


@pytest.fixture
def commands(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(inputs, tmp_path / "out", capsys)


@pytest.mark.parametrize("case", AT_ONCE, ids=lambda case: " ".join(case[:2]))
def test_it_is_refused_before_any_work(
    case: tuple[str, str, str, str], commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What takes long is not begun: Blender, sampling, a step of a fit.
    for work in (
        "render.supervisor.BlenderChild.call",
        "training.sampling.pipeline.MultiViewVideoPipeline.__call__",
        "fourd.reconstruct.Reconstruction.run",
    ):
        monkeypatch.setattr(work, _must_not_run)
    for memory in ("fourd.checks.free_memory_mb", "training.sampling.memory.free_memory_mb"):
        monkeypatch.setattr(memory, lambda: 4000.0)
    commands.refuses(*case)


@pytest.mark.blender
@pytest.mark.parametrize("case", BY_BLENDER, ids=lambda case: " ".join(case[:2]))
def test_what_only_blender_can_tell_leaves_nothing_either(
    case: tuple[str, str, str, str], commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.generate.Generator.generate", _must_not_run)
    commands.refuses(*case)


def _must_not_run(*_: object, **__: object) -> None:
    raise AssertionError("work has begun")


def _words(command: str, options: str, inputs: Path, out: Path) -> list[str]:
    base = BASES[command]
    if options.startswith("CLIP="):
        base, options = base.replace("--images IN/views", ""), f"--data=IN/{options[5:]} --clip=bar0bar0bar0bar0"
    return f"{base} {options}".replace("IN/", f"{inputs}/").replace("OUT/", f"{out}/").split()


def _run(arguments: Sequence[str]) -> int:
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("command", ["reconstruct", "generate", "animate"])
def test_without_a_gpu_a_gpu_is_refused_before_anything_is_read(
    command: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_gpu(*_: object, **__: object) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr("torch.empty", no_gpu)
    for read in (
        "fourd.command.find_clip",
        "training.sampling.folder.load_pipeline",
        "training.generate.load_pipeline",
    ):
        monkeypatch.setattr(read, _must_not_run)
    model = "IN/chair.glb " if command == "animate" else ""
    commands.refuses(command, f"{model}--device=cuda:0", "cuda:0", "Torch not compiled")


def test_too_little_memory_for_the_weights_is_told_before_they_are_read(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sampling.memory.free_memory_mb", lambda: 0.1)
    monkeypatch.setattr("training.encoders.Encoders.load", _must_not_run)
    commands.refuses("generate", "", "net-good: its weights, as float32, take about", "--compute")


def test_what_only_the_still_model_shows_is_refused_before_the_network_is_asked(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model of another format than GLB shows its size only once it has been posed.
    made = tmp_path / "object.glb"
    shutil.copy(inputs / "two_million.glb", made)
    with pytest.raises(ValueError, match="too_many_vertices"):
        pipeline.animate._check_object(made)
    assert not made.exists()
    shutil.copy(inputs / "chair.glb", made)
    pipeline.animate._check_object(made)
    assert made.exists()


def test_a_folder_with_other_things_in_it_keeps_them(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    (out / "x" / "mine.txt").write_text("mine")
    for command, options in (("reconstruct", "--held_out=99"), ("generate", "--pipeline=IN/net-other-kind")):
        assert _run([command, *_words(command, options, inputs, out)]) == EXIT_USAGE
    assert [path.name for path in out.rglob("*")] == ["x", "mine.txt"]


def test_the_good_input_of_the_table_is_good(inputs: Path, tmp_path: Path) -> None:
    assert _run(["reconstruct", *_words("reconstruct", "--export.videos=false", inputs, tmp_path)]) == 0
    assert (tmp_path / "x" / fourd.command.METRICS).is_file()
    assert _run(["view", *_words("view", "IN/chair.glb", inputs, tmp_path)]) == 0
