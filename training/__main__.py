"""`mv4d train` (`python -m training`): fit, validate, test, sample, export."""

import importlib.util
import sys
from collections.abc import Sequence

from pipeline.cli import usage_error

NEEDED = ("torch", "lightning", "diffusers", "transformers", "jaxtyping", "tensorboard", "av")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    _check()
    from training.cli import main as train

    return train(sys.argv[1:] if arguments is None else arguments)


def latents_main(arguments: Sequence[str] | None = None) -> int:
    """Encode clips for training; returns the exit code."""
    _check()
    from training.latents import main as encode

    return encode(arguments)


def generate_main(arguments: Sequence[str] | None = None) -> int:
    """Animate static objects; returns the exit code."""
    _check()
    from training.generate import main as generate

    return generate(arguments)


def _check() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        usage_error(
            f"training needs {', '.join(missing)}: install torch for this machine (https://pytorch.org/get-started), "
            "then pip install 'mv4d[train]'"
        )


if __name__ == "__main__":
    raise SystemExit(main())
