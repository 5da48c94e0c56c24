"""A new frame is begun in several ways, one after the other, and gone on with in the best."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fourd.motion.field import set_values


class Tries:
    """Where a frame's tries began, and how those ended that are over."""

    def __init__(self) -> None:
        self.start: list[Tensor] = []
        self.ended: list[tuple[float, list[Tensor]]] = []

    @property
    def best(self) -> int:
        """Number of the try with the least loss, 0 if none has ended."""
        losses = [loss for loss, _ in self.ended]
        return losses.index(min(losses)) if losses else 0

    def begin(self, parameters: Sequence[Tensor]) -> None:
        """The first try of a frame. `parameters`: the frame's own."""
        self.start, self.ended = _copied(parameters), []

    def begin_again(self, parameters: Sequence[Tensor], loss: float) -> None:
        """The next one, from the same start. `loss`: of the one that has ended."""
        self.ended.append((loss, _copied(parameters)))
        set_values(parameters, self.start)

    def end(self, parameters: Sequence[Tensor], loss: float) -> None:
        """The last one has ended: on with the best."""
        self.ended.append((loss, _copied(parameters)))
        set_values(parameters, self.ended[self.best][1])

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"start": self.start, "ended": self.ended}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From one."""
        self.start, self.ended = state["start"], state["ended"]


def _copied(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
