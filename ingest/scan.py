"""Reads the numbers in a glTF's buffers: whether they are finite, and between which bounds they lie."""

from dataclasses import dataclass, field

import numpy as np

from ingest.gltf import Accessor, Gltf
from ingest.json_values import broken
from ingest.refused import Refused

LARGEST_COORDINATE = 1e18
"""The square of a larger float32 is infinite, and so is every length computed from it."""

# An honest file's bytes are read once each, or a few times where attributes are interleaved.
_MOST_READS_OF_A_BYTE = 16
_FREE_BYTES = 1 << 20


@dataclass
class Scan:
    """Reads each accessor once, and not more in all than the buffers could honestly hold."""

    gltf: Gltf
    _checked: set[int] = field(default_factory=set)
    _spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    _num_bytes: int = 0

    def check_finite(self, index: int, what: str) -> None:
        """Refuse NaN, infinity and absurd numbers.

        Raises:
            Refused: `non_finite` or `too_complex`.
        """
        accessor = self.gltf.accessors[index]
        if index in self._checked or not accessor.is_float:
            return
        self._checked.add(index)
        self._pay(accessor)
        for block in accessor.blocks():
            with np.errstate(invalid="ignore"):
                wrong = ~(np.abs(block) <= LARGEST_COORDINATE)  # NaN compares false
            if wrong.any():
                count, example = np.count_nonzero(wrong), block[wrong][0]
                found = f"{what} (accessors[{index}]): {count} numbers are infinite, absurd or NaN, such as {example}"
                raise Refused("non_finite", found)

    def check_below(self, index: int, limit: int, what: str) -> None:
        """Refuse indices that are out of range.

        Raises:
            Refused: `malformed` or `too_complex`.
        """
        _, largest = self.span(index)
        if largest >= limit:
            broken(f"{what} (accessors[{index}]) point at element {largest:.0f} of {limit}")

    def span(self, index: int) -> tuple[float, float]:
        """Smallest and largest number of an accessor, as claimed if it is compressed; (0, -1) if it is empty.

        Raises:
            Refused: `too_complex`.
        """
        if index not in self._spans:
            accessor = self.gltf.accessors[index]
            if accessor.claimed:
                return accessor.claimed
            self._pay(accessor)
            blocks = [(float(block.min()), float(block.max())) for block in accessor.blocks() if block.size]
            if accessor.view is None and accessor.count:
                blocks.append((0.0, 0.0))
            low, high = min((low for low, _ in blocks), default=0.0), max((high for _, high in blocks), default=-1.0)
            self._spans[index] = (low, high)
        return self._spans[index]

    def _pay(self, accessor: Accessor) -> None:
        self._num_bytes += accessor.num_bytes
        held = self.gltf.num_buffer_bytes
        if self._num_bytes > _MOST_READS_OF_A_BYTE * held + _FREE_BYTES:
            raise Refused("too_complex", f"its accessors read the same {held} bytes over and over")
