"""Adam with one step size for all of a tensor (Nicolet et al. 2021, Large Steps in Inverse Rendering, section 3.5)."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class UniformAdam(torch.optim.Optimizer):
    """Divides by the largest second moment of a tensor, not by each number's own.

    Adam makes every number move at its full rate, whatever its gradient: what no picture shows then drifts about, and
    takes along what is tied to it. Here a node moves as far as its gradient is large beside the others'.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-15
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        del closure
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, parameter.grad, group)

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.zeros_like(parameter)
        state["step"] += 1
        one, two = group["betas"]
        state["first"].lerp_(gradient, 1 - one)
        state["second"].lerp_(gradient.square(), 1 - two)
        mean = state["first"] / (1 - one ** state["step"])
        largest = (state["second"].max() / (1 - two ** state["step"])).sqrt()
        parameter.sub_(group["lr"] * mean / (largest + group["eps"]))
