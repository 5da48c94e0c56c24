"""The `mv4d` command, and what every command line of the project shares.

Each command is a function in the folder it belongs to, and runs alone as well: `mv4d ingest` is `python -m ingest`.
Options come from frozen dataclasses through jsonargparse, so every command has `--config FILE` and `--print_config`.
"""

import dataclasses
import errno
import importlib
import logging
import os
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar, cast

import jsonargparse
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

# Field docstrings are the help texts.
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
warnings.filterwarnings("ignore", module="jsonargparse")

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("pipeline.demo:main", "the whole pipeline on the built-in samples, with a page to look at"),
    "build": ("pipeline.build:main", "assets in, shards out, in one streaming run"),
    "ingest": ("ingest.__main__:main", "list, check licences, fetch and inspect 3D files"),
    "import": ("ingest.rendered.command:import_main", "clips of data sets that others rendered: MV-Video, Diffusion4D"),
    "licence": ("ingest.__main__:licence_main", "recheck: read sources again; what is gone, private, or licensed anew"),
    "probe": ("render.__main__:probe_main", "measure every animation of every asset; no pixel is rendered"),
    "render": ("render.__main__:main", "render the animations that pass the gate"),
    "object": ("render.objects:object_main", "any 3D file, or a clip's asset at a frame, as a still GLB"),
    "convert": ("render.objects:convert_main", "an animated GLB as FBX, Alembic or USD"),
    "curate": ("curate.__main__:main", "score clips and decide by a preset which to keep"),
    "caption": ("curate.captions.__main__:main", "captions from Cap3D's or any list, or by a video-language model"),
    "pack": ("shards.__main__:pack_main", "write kept clips into WebDataset shards, with cards and index"),
    "lint": ("shards.__main__:lint_main", "check every byte of every shard against its index"),
    "stats": ("shards.__main__:stats_main", "the funnel, figures, and SQL over everything"),
    "takedown": ("shards.__main__:takedown_main", "take assets out of a data set, and keep them out"),
    "attribution": ("shards.__main__:attribution_main", "whom to credit for a data set, some tars, a training run"),
    "report": ("curate.__main__:report_main", "a page with playing clips, scores, and thresholds as sliders"),
    "latents": ("training.__main__:latents_main", "encode clips once, so that training reads latents alone"),
    "train": ("training.__main__:main", "train the multi-view video diffusion model on shards; sample and export it"),
    "generate": ("training.__main__:generate_main", "animate a static object by a prompt, with a trained model"),
    "animate": ("pipeline.animate:main", "a static model and a prompt: animated GLB, splats, videos, a page"),
    "reconstruct": ("fourd.__main__:reconstruct_main", "how an object moves in a clip: Gaussians and vertex tracks"),
    "view": ("fourd.viewer.__main__:main", "one HTML page that plays a 4D object from any side: mesh and splats"),
    "doctor": ("pipeline.doctor:main", "check this machine and say what to install"),
}
"""command: (where it lives, what it does)."""

EXIT_OK = 0
EXIT_FINDINGS = 1
"""The command ran and found something wrong: lint findings, samples that ended otherwise than they should."""
EXIT_USAGE = 2
EXIT_MACHINE = 3
"""The machine could not go on (a full disk, no Blender); run the same command again when it can."""
EXIT_INTERRUPTED = 130

T = TypeVar("T")


class Help(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Defaults and types after each option; examples as they are written."""


def command_parser(command: str, summary: str, examples: str) -> ArgumentParser:
    """A parser with `--config` and `--print_config`, whose help teaches by example."""
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    parser = ArgumentParser(
        prog=f"mv4d {command}",
        description=summary,
        epilog=f"Examples:\n{lines}",
        formatter_class=Help,
        allow_abbrev=True,
    )
    parser.add_argument("--config", action="config", help="Read options from a YAML file; later ones override it.")
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Parse a command line. `--dry-run` and `--dry_run` are the same.

    Raises:
        SystemExit: Options are wrong, or a dataclass refuses a value; the message has been printed.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = [_underscored(argument) for argument in given]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parsed = parser.parse_args(options)
        try:
            return cast(Namespace, parser.instantiate(parsed))
        except ValueError as error:
            usage_error(str(error))


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def pick(settings: type[T], namespace: Namespace, **more: Any) -> T:
    """A settings dataclass from the options of its fields; `more` goes before.

    Raises:
        SystemExit: The dataclass refuses a value; the message has been printed.
    """
    given = vars(namespace)
    names = {field.name for field in dataclasses.fields(cast(Any, settings)) if field.init}
    values = {name: given[name] for name in names if name in given} | more
    try:
        return settings(**values)
    except ValueError as error:
        usage_error(str(error))


def usage_error(message: str) -> NoReturn:
    """Say what is wrong with the command and end with the code for it."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False)
    raise SystemExit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mv4d COMMAND …`; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not sys.stdout.isatty():
        # Files and pipes have no width: rich would fold tables to 80 columns.
        os.environ.setdefault("COLUMNS", "140")
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False)],
    )
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return EXIT_OK if given else EXIT_USAGE
    if given[0] == "--version":
        print(importlib.import_module("importlib.metadata").version("mv4d"))
        return EXIT_OK
    if given[0] not in COMMANDS:
        usage_error(f"no command {given[0]!r}; there are: {', '.join(COMMANDS)}")
    return run_command(given[0], given[1:])


def run_command(command: str, arguments: Sequence[str]) -> int:
    """Run one command of `COMMANDS`; an interrupt and a failing machine become exit codes."""
    module, function = COMMANDS[command][0].split(":")
    try:
        return int(getattr(importlib.import_module(module), function)(arguments))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`, say) has seen enough.
        sys.stderr.close()
        return EXIT_OK
    except RuntimeError as error:
        return _stopped(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _stopped(f"no space left on the disk: {error}")


def _stopped(why: str) -> int:
    Console(stderr=True).print(f"[bold red]stopped:[/] {why}", highlight=False)
    return EXIT_MACHINE


def overview() -> str:
    """What `mv4d --help` says."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: mv4d COMMAND [options]",
            "",
            "Licensed animated 3D assets in, curated multi-view video shards out.",
            "",
            "commands:",
            *lines,
            "",
            "Each command has --help with examples, --config FILE and --print_config.",
            "Begin with:  mv4d demo        then:  mv4d build FOLDER --data DATA",
            "",
            "exit codes: 0 fine, 1 something was found wrong, 2 wrong usage, 3 the machine could not go on,",
            "75 training was stopped by a signal and has saved, 130 interrupted.",
            "Assets that are turned away are no error: `mv4d stats` counts them by reason.",
        ]
    )
