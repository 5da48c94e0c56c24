"""The rendering of published systems, as settings: `--as NAME` of `mv4d probe`, `mv4d render` and `mv4d build`.

A preset is a YAML file of `presets/`, of options under their own names. Each command takes those that it has as its
defaults, so `--config` and single options change them.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

FOLDER = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names for `--as`."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """Options of all commands, nested as in a config file."""
    options: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return options


def add_preset_option(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Add `--as`, and make the defaults of the parser those of the preset that the arguments name.

    Args:
        parser: Has all of its other options already.
        arguments: Of the command line.
    """
    names = preset_names()
    parser.add_argument("--as", choices=names, default=None, help="Render as a published system does.")
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument("--as", dest="name")
    name = peek.parse_known_args(list(arguments))[0].name
    if name not in names:
        return  # the parser will say so
    known = parser.get_defaults()
    parser.set_defaults({key: value for key, value in _options(read_preset(name), known) if key in known})


def _options(preset: dict[str, Any], known: Any) -> Iterator[tuple[str, Any]]:
    """Dotted names where the parser has those, else whole groups."""
    for key, value in preset.items():
        if isinstance(value, dict) and any(f"{key}.{name}" in known for name in value):
            yield from ((f"{key}.{name}", entry) for name, entry in value.items())
        else:
            yield key, value
