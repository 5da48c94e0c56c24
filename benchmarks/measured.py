"""What the benchmarks share: real or built-in assets, Blender's own times, and the last line."""

import json
import logging
import os
import sys
from collections import Counter
from pathlib import Path

from ingest.sources.samples import Samples, default_cache

REPOSITORY = Path(__file__).resolve().parents[1]


class BlenderTimes(logging.Handler):
    """Sums the seconds that the render stage reports for each clip: `draw_s`, `load_s`, `encode_s`, …"""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.total: Counter[str] = Counter()
        logger = logging.getLogger("mv4d.render")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if isinstance(event, dict) and event.get("kind") == "clip_drawn":
            self.total.update({name: value for name, value in event.items() if isinstance(value, int | float)})


def manifest() -> Path:
    """A manifest of real assets if there are some (MV4D_ASSETS), else the built-in samples."""
    folder = Path(os.environ.get("MV4D_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if (folder / "catalog.csv").exists():
        return folder / "catalog.csv"
    samples = Samples(cache=default_cache())
    for _ in samples.items():
        break
    return samples.manifest


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def last_line(*, name: str, value: float, unit: str, baseline: str, goal: str) -> None:
    """The result as one JSON object."""
    print(json.dumps({"name": name, "value": round(value, 5), "unit": unit, "baseline": baseline, "goal": goal}))
