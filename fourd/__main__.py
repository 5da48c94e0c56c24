"""`python -m fourd COMMAND`: `reconstruct`, as `mv4d reconstruct`, and `view`."""

import importlib.util
import sys
from collections.abc import Sequence

from pipeline.cli import usage_error

NEEDED = ("torch", "safetensors", "scipy", "numba", "psutil")


def reconstruct_main(arguments: Sequence[str] | None = None) -> int:
    """Reconstruct a clip; returns the exit code."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        usage_error(
            f"reconstruction needs {', '.join(missing)}: install torch for this machine "
            "(https://pytorch.org/get-started), then pip install 'mv4d[train]'"
        )
    from fourd.command import main as reconstruct

    return reconstruct(sys.argv[1:] if arguments is None else arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the folder's commands; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["reconstruct"]:
        return reconstruct_main(given[1:])
    if given[:1] == ["view"]:
        from fourd.viewer.__main__ import main as view

        return view(given[1:])
    usage_error(f"fourd has the commands reconstruct and view, got {given[:1] or 'none'}")


if __name__ == "__main__":
    raise SystemExit(main())
