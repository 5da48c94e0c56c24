"""Small networks from features to motion, which begin at no motion."""

from torch import Tensor, nn


class Head(nn.Sequential):
    """Linear, ReLU, Linear, without biases; the last layer begins at zero."""

    def __init__(self, num_features: int, width: int, num_outputs: int) -> None:
        last = nn.Linear(width, num_outputs, bias=False)
        nn.init.zeros_(last.weight)
        super().__init__(nn.Linear(num_features, width, bias=False), nn.ReLU(), last)

    def __call__(self, features: Tensor) -> Tensor:
        """Shape (..., num_outputs)."""
        out: Tensor = super().__call__(features)
        return out
