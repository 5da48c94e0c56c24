"""How well are real animated assets found again from four views of their own renders?

Of each clip of a data root that has ground-truth tracks, the asset itself as it stands at frame 0 (`mv4d object`) and
four views are given. Views that were held out, and the vertices' true ways, are what it is scored by. The `cpu` preset
is compared with itself without ARAP, and with the `4dgaussians` preset, whose steps are cut to the core-seconds that
ours took. Without --data, clips are rendered first, from the real assets (MV4D_ASSETS) or the built-in samples. Results
are JSON lines; what they hold is not done again, nor are objects that are there.

    OMP_NUM_THREADS=1 python -m benchmarks.reconstruct_real [--data DATA] [--out table.jsonl] [--clips 12]
        [--objects FOLDER] [--methods ours without_arap 4dgaussians] [--pictures FOLDER]
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measured import last_line, manifest, say
from fourd.canonical import of_object
from fourd.command import true_tracks
from fourd.objects.glb import ReadObject, read_with_looks
from fourd.objects.on_mesh import OnMeshSettings, gaussians_on_mesh
from fourd.objects.placement import Similarity
from fourd.preview import draw_below
from fourd.reconstruct import Reconstruction
from fourd.scoring import score_surface_tracks, score_views
from fourd.settings import ReconstructionSettings, load_settings
from fourd.video import MultiViewVideo, find_clip, input_views, read_video
from pipeline.media import GREY
from pipeline.records import Asset, Clip
from pipeline.storage import Store
from pipeline.tables import Tables
from pipeline.truth_media import Tracks

METHODS = ("ours", "without_arap", "4dgaussians")
LEAST_PSNR_DB, MOST_TRACK_ERROR = 28.0, 0.02
"""The goal for an asset: held-out views, and mean error as a share of the radius."""
NUM_SHOWN = 6
"""Frames in a picture."""
NUM_TIMED = 12
"""Steps of the hexplane that are timed, to know how many fit into the time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="data root with tracks; built anew if not given")
    parser.add_argument("--out", type=Path, help="JSON lines, gone on with")
    parser.add_argument("--objects", type=Path, help="folder for the assets as GLB, by clip")
    parser.add_argument("--clips", type=int, default=0, help="at most; 0 is all")
    parser.add_argument("--only", nargs="*", default=[], help="how names of assets begin")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--pictures", type=Path, help="folder for pictures of our results: a held-out view, truth above"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as folder:
        store = Store(arguments.data or built(Path(folder)))
        out = arguments.out or Path(folder) / "table.jsonl"
        objects = arguments.objects or Path(folder)
        rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        done = {(row["clip_id"], row["method"]): row for row in rows}
        for number, (name, clip_id) in enumerate(named_clips(store)):
            if arguments.clips and number >= arguments.clips:
                break
            if arguments.only and not name.startswith(tuple(arguments.only)):
                continue
            for method in arguments.methods:
                if (clip_id, method) in done:
                    continue
                budget_s = done[clip_id, "ours"]["core_s"] if (clip_id, "ours") in done else 0.0
                if method == "4dgaussians" and not budget_s:
                    raise SystemExit("4dgaussians is given the time that ours took: name ours before it")
                picture = arguments.pictures / f"{name}.png" if arguments.pictures and method == "ours" else None
                found = scored(case_of(store, clip_id, objects), method, budget_s, picture)
                row = {"asset": name, "method": method, **found}
                done[clip_id, method] = row
                with open(out, "a") as file:
                    file.write(json.dumps(row) + "\n")
                say(f"{name} {method}: {row['held_out']['psnr_db']:.2f} dB, {100 * row['tracks']['mean_error']:.2f} %")
    print_table(list(done.values()))


def built(folder: Path) -> str:
    """A data root with a clip of each asset, 16 views, 128 px, with tracks."""
    command = [sys.executable, "-m", "pipeline", "build", str(manifest()), "--data", str(folder / "data")]
    command += ["--rig", "mv16", "--size_px", "128", "--max_animations", "1", "--passes", "tracks", "--policy", "open"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return str(folder / "data")


def named_clips(store: Store) -> list[tuple[str, str]]:
    """Name of the asset, or the clip's id where there is none, and id of the clip, sorted."""
    tables = Tables(store)
    names = {asset.asset_id: Path(asset.name).stem for asset in tables.rows(Asset)}
    return sorted((names.get(clip.asset_id, clip.clip_id), clip.clip_id) for clip in tables.rows(Clip))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A clip to be found again."""

    clip_id: str
    read: ReadObject
    """The asset as frame 0 shows it."""
    truth: Tracks
    video: MultiViewVideo
    held_out: MultiViewVideo


def case_of(store: Store, clip_id: str, objects: Path) -> Case:
    """Read a clip and its asset, which is made a GLB of if it is not there."""
    clip = find_clip(store, clip_id)
    truth = true_tracks(store, clip)
    if truth is None:
        raise SystemExit(f"clip {clip_id} has no tracks: `mv4d render --passes tracks` adds them")
    path = objects / f"{clip_id}.glb"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pipeline", "object", "--data", str(store.root), "--clip", clip_id]
        subprocess.run([*command, "--out", str(path)], check=True, stdout=sys.stderr)
    views = input_views(clip)
    others = [view for view in range(clip.num_views) if view not in views]
    return Case(
        clip_id=clip_id,
        read=read_with_looks(path, object_from_world=Similarity.of_clip(clip)),
        truth=truth,
        video=read_video(store, clip, views),
        held_out=read_video(store, clip, others[:: max(1, -(-len(others) // 8))]),
    )


def scored(case: Case, method: str, budget_s: float, picture: Path | None) -> dict[str, Any]:
    """Fit a clip, and score it."""
    static, truth = case.read.static, case.truth

    def fit_of(settings: ReconstructionSettings) -> Reconstruction:
        wanted = OnMeshSettings(num_points=settings.num_gaussians, on_vertices=False, seed=settings.seed)
        return Reconstruction(case.video, of_object(static, gaussians_on_mesh(case.read, wanted)), settings)

    settings = settings_of(method)
    if method == "4dgaussians":
        steps = round(budget_s / step_s(fit_of(with_steps(settings, NUM_TIMED))))
        settings = with_steps(settings, max(NUM_TIMED, steps))
    fit = fit_of(settings)
    began = time.process_time()
    model = fit.run()
    core_s = time.process_time() - began
    if picture is not None:
        frames = torch.linspace(0, case.held_out.num_frames - 1, NUM_SHOWN).round().long()
        draw_below(model, case.held_out, frames, case.held_out.num_views // 2, picture, background=GREY)
    followed = model.tracks().numpy()
    tracks = score_surface_tracks(followed, static.faces, static.vertices, truth.positions, truth.triangles)
    return {
        "clip_id": case.clip_id,
        "core_s": round(core_s, 1),
        "steps": fit.step,
        "size_px": case.video.size_px[0],
        "num_vertices": len(static.vertices),
        "input": dataclasses.asdict(score_views(model, case.video)),
        "held_out": dataclasses.asdict(score_views(model, case.held_out)),
        "tracks": dataclasses.asdict(tracks),
    }


def settings_of(method: str) -> ReconstructionSettings:
    """The preset, and what is changed in it."""
    if method == "4dgaussians":
        # Begun and drawn as ours is, by as many Gaussians, and both see the same pictures. Light is no part of it.
        ours = load_settings("cpu")
        return dataclasses.replace(
            load_settings("4dgaussians"),
            static=ours.static,
            drawing=dataclasses.replace(ours.drawing, is_lit=False),
            num_gaussians=ours.num_gaussians,
        )
    return load_settings("cpu", ["weights.node_arap=0"] if method == "without_arap" else [])


def with_steps(settings: ReconstructionSettings, steps: int) -> ReconstructionSettings:
    """The same with so many steps in its only stage, by whose end its rates have fallen."""
    (stage,) = settings.stages
    return dataclasses.replace(settings, stages=(dataclasses.replace(stage, steps=steps),))


def step_s(fit: Reconstruction) -> float:
    """Core-seconds of a step, over those that a fit has."""
    times: list[float] = []
    fit.run(lambda _: times.append(time.process_time()))
    return (times[-1] - times[0]) / (len(times) - 1)


def meets_goal(row: dict[str, Any]) -> bool:
    """Of an asset by a method."""
    near = bool(row["tracks"]["mean_error"] < MOST_TRACK_ERROR)
    return near and bool(row["held_out"]["psnr_db"] >= LEAST_PSNR_DB)


def print_table(rows: list[dict[str, Any]]) -> None:
    """As Markdown, and the last line."""
    methods = [method for method in METHODS if any(row["method"] == method for row in rows)]
    found = {(row["asset"], row["method"]): row for row in rows}
    figures = "held-out dB, tracks %, near %, IoU, core-s"
    print("| asset | standing still, % | " + " | ".join(f"{method}: {figures}" for method in methods) + " |")
    print("|---|---|" + "---|" * len(methods))
    for asset in sorted({row["asset"] for row in rows}):
        mine = [found.get((asset, method)) for method in methods]
        still = next(100 * row["tracks"]["still_error"] for row in mine if row)
        print(f"| {asset} | {still:.1f} | " + " | ".join(cell(row) for row in mine) + " |")
    numbers = {}
    for method in methods:
        met_by = [meets_goal(row) for row in rows if row["method"] == method]
        numbers[method] = (sum(met_by), len(met_by))
    met, tried = numbers.get("ours", (0, 0))
    others = {method: counts for method, counts in numbers.items() if method != "ours"}
    last_line(
        name="reconstruct_real",
        value=float(met),
        unit=f"assets of {tried} with held-out views >= {LEAST_PSNR_DB:.0f} dB and tracks < {MOST_TRACK_ERROR:.0%} off",
        baseline="; ".join(f"{method}: {a} of {b}" for method, (a, b) in others.items()) or "not run",
        goal=">= 8 of 12",
    )


def cell(row: dict[str, Any] | None) -> str:
    """A method's figures for an asset."""
    if row is None:
        return "-"
    views, tracks = row["held_out"], row["tracks"]
    shares = f"{100 * tracks['mean_error']:.2f}, {100 * tracks['share_near']:.0f}, {views['mask_iou']:.3f}"
    return f"{views['psnr_db']:.2f}, {shares}, {row['core_s']:.0f}"


if __name__ == "__main__":
    main()
