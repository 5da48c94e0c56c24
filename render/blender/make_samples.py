"""Make the built-in sample assets, good and bad, and the manifest that lists them.

    python -m render.blender.make_samples OUT_DIR

All are made by this code alone and are CC0; the other licences that some bad samples state are made up, to show what a
policy turns away. Reads nothing. Two runs give the same bytes.
"""

import argparse
import csv
import time
from pathlib import Path

import bpy

from render.blender.sample_catalogue import SAMPLES, Sample
from render.blender.sample_export import export_scene, quiet_stdout
from render.blender.sample_scene import clear_scene

COLUMNS = (
    "file", "title", "spdx", "licence_text", "licence_url", "author", "source_url", "noai", "tags", "note", "expect",
    "expect_actions",
)  # fmt: skip
LICENCE_URLS = {
    "": "",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
}


def make_samples(out_dir: Path) -> Path:
    """Write every sample and the manifest; files of the same name are overwritten.

    Args:
        out_dir: Made where it is missing.

    Returns:
        The manifest.
    """
    with quiet_stdout():
        bpy.ops.wm.read_factory_settings(use_empty=True)
    for number, sample in enumerate(SAMPLES, start=1):
        started = time.perf_counter()
        path = out_dir / sample.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sample(sample, path)
        seconds = time.perf_counter() - started
        size = path.stat().st_size
        print(
            f"[{number:2d}/{len(SAMPLES)}] {sample.file}: {size:,} bytes, {seconds:.2f} s, {sample.expect}", flush=True
        )
    clear_scene()
    return write_manifest(out_dir / "manifest.csv")


def write_sample(sample: Sample, path: Path) -> None:
    """Write one sample's file, with whatever lies beside it."""
    if sample.build is not None:
        clear_scene()
        sample.build()
        export_scene(path, keep_constant_curves=sample.keep_constant_curves)
    if sample.finish is not None:
        sample.finish(path)


def write_manifest(path: Path) -> Path:
    """Write the CSV that the ingest stage reads, with two columns more: what each file should come to."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for sample in SAMPLES:
            writer.writerow(
                {
                    "file": sample.file,
                    "title": sample.title,
                    "spdx": sample.spdx,
                    "licence_text": "",
                    "licence_url": LICENCE_URLS[sample.spdx],
                    "author": "mv4d",
                    "source_url": "",
                    "noai": "" if sample.noai is None else str(sample.noai).lower(),
                    "tags": sample.tags,
                    "note": sample.note,
                    "expect": sample.expect,
                    "expect_actions": "" if sample.expect_actions is None else sample.expect_actions,
                }
            )
    return path


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m render.blender.make_samples", description="Make the built-in sample assets."
    )
    parser.add_argument("out_dir", type=Path, help="folder for the files and manifest.csv; made where it is missing")
    print(make_samples(parser.parse_args().out_dir))


if __name__ == "__main__":
    main()
