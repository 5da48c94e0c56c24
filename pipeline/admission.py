"""Which work may begin on which machine, so that all of it together fits into the machine's memory."""

from dataclasses import dataclass, field

from pipeline.machine import free_memory_mb

FREE_SHARE = 0.8
"""Of the free memory is for renderers: their needs are estimates."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A machine, as far as memory goes."""

    name: str
    memory_mb: float
    """What the workers there may take together."""

    @classmethod
    def here(cls, memory_mb: float, name: str = "") -> "Place":
        """This machine.

        Args:
            memory_mb: What the workers may take; 0 for most of what is free now.
            name: Tells it from others.
        """
        return cls(name=name, memory_mb=memory_mb or FREE_SHARE * free_memory_mb())


@dataclass
class Admission:
    """The memory that is promised to workers, in MB.

    A worker keeps what it took for its last work until it begins another or is rested: its child has the asset loaded.
    """

    _held: dict[int, float] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)
    _places: dict[int, str] = field(default_factory=dict)

    def fits(self, worker: int, place: Place, memory_mb: float) -> bool:
        """Whether a worker may begin work of this size. What is too large for the whole machine runs alone."""
        if memory_mb == 0:
            return True
        busy = [self._held[other] for other in self._others(worker, place) if other in self._busy]
        return not busy or sum(busy) + memory_mb <= place.memory_mb

    def begin(self, worker: int, place: Place, memory_mb: float) -> list[int]:
        """Promise the memory to a worker; gives idle workers that have to be rested to make room."""
        self._busy.add(worker)
        self._places[worker] = place.name
        if memory_mb == 0:
            self._held.setdefault(worker, 0.0)
            return []
        self._held[worker] = memory_mb
        others = self._others(worker, place)
        too_much = memory_mb + sum(self._held[other] for other in others) - place.memory_mb
        rested = []
        for other in sorted(set(others) - self._busy, key=lambda other: -self._held[other]):
            if too_much > 0 and self._held[other] > 0:
                too_much -= self._held[other]
                self._held[other] = 0.0
                rested.append(other)
        return rested

    def end(self, worker: int) -> None:
        """A worker is done with its work."""
        self._busy.discard(worker)

    def forget(self, worker: int) -> None:
        """A worker is gone, with all that it held."""
        self._busy.discard(worker)
        self._held.pop(worker, None)
        self._places.pop(worker, None)

    def _others(self, worker: int, place: Place) -> list[int]:
        return [other for other, name in self._places.items() if name == place.name and other != worker]
