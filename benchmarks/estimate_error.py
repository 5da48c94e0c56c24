"""How far is what `mv4d render --estimate` says from what drawing costs?

The real assets are measured and planned. Every second one is held back; some pictures of up to 20 of the others are
drawn, as `--estimate` does, and the cost of the held-back half is foreseen from these alone. Then that half is drawn
whole, each asset in turn loaded, drawn, encoded and written, and its processor seconds and bytes are counted.
Usage: python -m benchmarks.estimate_error [rig] [quality] [pixels]
"""

import sys
from typing import cast

from benchmarks.measured import Studio, last_line, say
from pipeline.records import Clip
from render.estimate import calibrate, count, estimate, spent_s
from render.look import QualityName
from render.plan import AnimatedAsset
from render.rigs import RigName


def main(rig: RigName, quality: QualityName, size_px: int) -> None:
    with Studio(rig=rig, quality=quality, size_px=size_px) as studio:
        found = [item for _, asset in studio.assets(1000) for item in studio.measured(asset)]
        animated = [item for item in found if count(studio.planner, [item]).clips]
        known, held_back = animated[::2], animated[1::2]
        say(f"{len(found)} assets measured, {len(animated)} to draw, {len(held_back)} of them held back")
        trials = calibrate(studio.render, count(studio.planner, known).clips)
        clips = count(studio.planner, held_back).clips
        foreseen = estimate(clips, trials)
        say(f"foreseen from {len(trials)} assets: {foreseen.seconds.text()} core-s, {foreseen.num_bytes.text(1e-6)} MB")
        seconds, num_bytes = draw(studio, held_back)
    say(f"drawn: {seconds:.1f} core-s, {num_bytes / 1e6:.2f} MB")
    say(f"bytes foreseen {100 * (foreseen.num_bytes.value / num_bytes - 1):+.1f} %")
    inside = abs(foreseen.seconds.value - seconds) <= foreseen.seconds.error
    say(f"the seconds are {'inside' if inside else 'outside'} of the interval")
    last_line(
        name="estimate_error",
        value=100 * abs(foreseen.seconds.value / seconds - 1),
        unit="% off the core seconds of a held-back half",
        baseline=f"{len(held_back)} real assets drawn whole: {rig}, {quality}, {size_px} px, {seconds:.0f} core-s",
        goal="< 15",
    )


def draw(studio: Studio, assets: list[AnimatedAsset]) -> tuple[float, int]:
    """Processor seconds and bytes of all clips."""
    seconds, num_bytes = 0.0, 0
    for item in assets:
        studio.started()
        before = spent_s(studio.child, on_gpu=False)
        for clip in count(studio.planner, [item]).clips:
            for row in studio.render.process(clip.plan):
                num_bytes += sum(part.num_bytes for part in row.parts) if isinstance(row, Clip) else 0
        seconds += spent_s(studio.child, on_gpu=False) - before
    return seconds, num_bytes


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv[1:]))
    main(
        cast(RigName, arguments.get(0, "ortho4")),
        cast(QualityName, arguments.get(1, "preview")),
        int(arguments.get(2, 256)),
    )
