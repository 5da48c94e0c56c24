"""`mv4d caption` and `python -m curate.captions`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from curate.captions.join import Joined, join_captions
from curate.captions.video_language import VideoLanguage, load
from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.records import Clip
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver


def main(arguments: Sequence[str] | None = None) -> int:
    """Join captions from a list, or have a model look at the clips."""
    parser = command_parser(
        "caption",
        "Give clips captions: from a list (--captions: a .csv or .parquet of ids and texts, such as Cap3D's), or by a "
        "video-language model (--model). Clips without either are captioned by their names and tags when they are "
        "packed. A list goes before a model, and both before the words of an imported data set.",
        """mv4d caption --captions Cap3D_automated_Objaverse_full.csv --data data
        mv4d caption --captions ours.parquet --name ours --data data && mv4d pack --data data
        mv4d caption --model models/SmolVLM2-2.2B-Instruct --data data""",
    )
    parser.add_argument("--captions", type=str, default="", help="List of captions.")
    parser.add_argument("--name", type=str, default="", help="What the list is called by; its file's name if empty.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(VideoLanguage, None, skip={"data", "model"})
    parser.add_argument("--model", type=str, default="", help="Folder or hub name of an image-text-to-text model.")
    namespace = parse(parser, arguments)
    if bool(namespace.captions) == bool(namespace.model):
        usage_error("give either --captions FILE or --model MODEL")
    options = pick(RunOptions, namespace)
    console = Console()
    try:
        if namespace.captions:
            with sole_driver(options.tables.store):
                options.tables.recover()
                print_joined(
                    join_captions(options.tables, Path(namespace.captions).expanduser(), namespace.name), console
                )
            return EXIT_OK
        stage = pick(VideoLanguage, namespace, data=absolute_root(options.data))
        if not options.uses_ray:
            load(stage.model, stage.revision)
        clips = options.tables.rows(Clip)
        if not clips:
            usage_error(f"there are no clips in {options.data}; run `mv4d render` or `mv4d import` first")
        with sole_driver(options.tables.store):
            run_stages(options, [stage], iter(clips), heading="mv4d caption", num_inputs=len(clips))
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def print_joined(joined: Joined, console: Console) -> None:
    """What a list gave."""
    console.print(
        f"[bold]{joined.num_captions}[/] of {joined.num_clips} clips have a caption of {joined.source!r}; "
        f"{joined.num_used} of its {joined.num_rows} rows name something that is here",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
