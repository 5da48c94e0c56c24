"""Two small real stages for the runner's tests: squares of numbers, in files."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.records import Appearance, Record, Rejected, SourceItem, Visibility
from pipeline.stage import Stage, rejected


def item(number: int, *, name: str = "") -> SourceItem:
    return SourceItem(
        item_id=f"item{number:03d}", seq=number, source="toys", uri=f"/toys/{number}", name=name or str(number),
        title="", spdx="", licence_text="", licence_url="", author="", source_url="", noai=None, checked_on="",
        evidence="", evidence_sha256="", noai_checked_on="", expected_sha256="", num_bytes=None, tags=(),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Halve(Stage[SourceItem, Visibility]):
    """One row an item, two for even ones; `name` makes it misbehave."""

    name: ClassVar[str] = "toy.halve"
    writes: ClassVar[tuple[type[Record], ...]] = (Visibility,)
    resource: ClassVar[str] = "io"  # type: ignore[assignment,misc]
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "scratch"})
    scratch: str = ""
    scale: float = 1.0

    def process(self, item: SourceItem) -> Iterator[Visibility | Rejected]:
        with open(f"{self.scratch}/calls", "a") as file:
            file.write(f"{item.item_id}\n")
        if item.name == "bad":
            yield rejected(self, item.item_id, "malformed", "asked to", item.name)
            return
        if item.name == "flaky" and not Path(f"{self.scratch}/{item.item_id}-tried").exists():
            Path(f"{self.scratch}/{item.item_id}-tried").touch()
            raise ConnectionError("the first try fails")
        if item.name == "faulty":
            raise ConnectionError("every try fails")
        if item.name == "full":
            raise OSError(28, "No space left on device")
        if item.name == "hang":
            time.sleep(4)
        if item.name == "die":
            os._exit(9)
        if item.name == "slow":
            with open(f"{self.scratch}/processes", "a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(1.0)
        for part in range(2 if item.seq % 2 == 0 else 1):
            half = item.seq / 2 * self.scale
            yield Visibility(
                clip_id=f"{item.item_id}-{part}",
                coverage_min=half,
                coverage_mean=half,
                coverage_max=half,
                border_touch=0,
            )

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[SourceItem]:
        return [row for row in rows if isinstance(row, SourceItem)]


@dataclass(frozen=True, kw_only=True)
class Name(Stage[Visibility, Appearance]):
    """One row a visibility."""

    name: ClassVar[str] = "toy.name"
    writes: ClassVar[tuple[type[Record], ...]] = (Appearance,)

    def process(self, item: Visibility) -> Iterator[Appearance | Rejected]:
        yield Appearance(
            clip_id=item.clip_id, luminance_mean=item.coverage_mean, contrast=0, colourfulness=0, magenta_share=0,
            fingerprint=item.clip_id,
        )  # fmt: skip

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[Visibility]:
        return [row for row in rows if isinstance(row, Visibility)]
