"""`mv4d import mv-video` and `mv4d import diffusion4d`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ingest.refused import Refused
from ingest.rendered.clips import ImportRendered
from ingest.rendered.diffusion4d import STATEMENT as DIFFUSION4D_STATEMENT
from ingest.rendered.diffusion4d import ImportDiffusion4d, list_diffusion4d
from ingest.rendered.listing import Claims, Listed, RenderedSource
from ingest.rendered.mv_video import STATEMENT as MV_VIDEO_STATEMENT
from ingest.rendered.mv_video import ImportMvVideo, list_mv_video
from ingest.sources.lists import Only
from ingest.sources.objaverse import uid_of
from ingest.stage import DryRun
from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver


@dataclass(frozen=True)
class DataSet:
    """A published layout."""

    stage: type[ImportRendered]
    list_clips: Callable[[Path], tuple[Path, Iterator[Listed]]]
    statement: str
    noai: bool | None
    what: str
    examples: str


DATA_SETS: dict[str, DataSet] = {
    "mv-video": DataSet(
        stage=ImportMvVideo,
        list_clips=list_mv_video,
        statement=MV_VIDEO_STATEMENT,
        # Its card says that models with an opt-out were left out.
        noai=False,
        what="MV-Video: the folder with uid_info_dict.json and videos/, or a JSON list for Animate3D's trainer.",
        examples="""mv4d import mv-video MV-Video/ --licences objaverse,sketchfab --data data
        mv4d import mv-video MV-Video/ --licences models.csv --ids MV-Video/high_quality_uid.txt --num_views 4 --every 3
        mv4d import mv-video train_4view.json --licences models.csv --data data --dry-run""",
    ),
    "diffusion4d": DataSet(
        stage=ImportDiffusion4d,
        list_clips=list_diffusion4d,
        statement=DIFFUSION4D_STATEMENT,
        noai=None,
        what="Diffusion4D: the folder into which Dynamic4D, Static3D and monocular_front are unpacked, or what its "
        "script wrote.",
        examples="""mv4d import diffusion4d objaverse1.0_curated/ --licences objaverse --data data
        mv4d import diffusion4d objaverseXL_curated/ --licences meta_xl_animation_tot.csv --policy research --data data
        mv4d import diffusion4d output/ --licences models.csv --cameras script --data data""",
    ),
}


def _overview() -> str:
    examples = (line.strip() for data_set in DATA_SETS.values() for line in data_set.examples.splitlines())
    return "\n".join(
        [
            f"usage: mv4d import {{{','.join(DATA_SETS)}}} PATH [options]",
            "",
            "Bring a data set that others have rendered into a data root, as clips that can be curated and packed.",
            *(f"  {name:<12} {data_set.what}" for name, data_set in DATA_SETS.items()),
            "",
            "Each has --help with its options, --config FILE and --print_config.",
            "",
            "Examples:",
            *(f"  {line}" for line in examples),
        ]
    )


def import_main(arguments: Sequence[str]) -> int:
    """Bring a rendered data set into a data root."""
    given = list(arguments)
    if given and given[0] in ("-h", "--help"):
        print(_overview())
        raise SystemExit(EXIT_OK)
    if not given or given[0] not in DATA_SETS:
        usage_error(f"name the data set: mv4d import {{{','.join(DATA_SETS)}}} PATH; mv4d import --help says more")
    data_set = DATA_SETS[given[0]]
    parser = command_parser(
        f"import {given[0]}",
        f"Make clips with cameras of {data_set.what} A model whose licence is not known is turned away: say with "
        "--licences where licences are read. Afterwards: mv4d curate, mv4d pack.",
        data_set.examples,
    )
    parser.add_argument("path", type=str, help="The data set.")
    parser.add_argument("--ids", type=str, default="", help="File of uids or hashes: import those models alone.")
    parser.add_argument("--dry_run", action="store_true", help="Count clips by licence; write nothing.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Claims, None)
    parser.add_class_arguments(data_set.stage, None, skip={"data"})
    namespace = parse(parser, given[1:])
    options = pick(RunOptions, namespace)
    stage = pick(data_set.stage, namespace, data=absolute_root(options.data))
    try:
        source = open_rendered(given[0], Path(namespace.path).expanduser(), pick(Claims, namespace), namespace.ids)
        if namespace.dry_run:
            from ingest.__main__ import print_dry_run

            print_dry_run(dry_run(source, stage), Console())
            return EXIT_OK
        with sole_driver(options.tables.store):
            clips = sorted(source.clips(options.tables), key=lambda clip: clip.item.seq)
            run_stages(options, [stage], iter(clips), heading=f"mv4d import {given[0]}", num_inputs=len(clips))
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def open_rendered(name: str, path: Path, claims: Claims, ids: str = "") -> RenderedSource:
    """The items of a rendered data set.

    Args:
        name: A key of `DATA_SETS`.
        path: The data set.
        claims: Where licences are read.
        ids: File of the models to take; empty for all.

    Raises:
        ValueError: The data set or a list is not what it should be.
    """
    data_set = DATA_SETS[name]
    root, found = data_set.list_clips(path)
    wanted = {uid_of(text) for text in Only(ids=ids).wanted_ids or ()}
    listed = tuple(clip for clip in found if not ids or clip.model_id in wanted)
    if not listed:
        raise ValueError(f"{path} holds no clip" + (f" of the models in {ids}" if ids else ""))
    return RenderedSource(
        data_set=name,
        statement=data_set.statement,
        noai=data_set.noai,
        root=root.absolute(),
        listed=listed,
        claims=claims,
        known=claims.read(clip.model_id for clip in listed),
    )


def dry_run(source: RenderedSource, stage: ImportRendered) -> DryRun:
    """What would be admitted and turned away by licence; pictures are not looked at."""
    found = DryRun()
    for item in source.items():
        try:
            licence = stage.licence_policy.admit(item, honour_noai=stage.honour_noai)
            tally = found.admitted[source.name, licence.licence_class, "rendered"]
        except Refused as refused:
            tally = found.turned_away[source.name, refused.reason, "rendered"]
        tally.num_files += 1
        tally.num_unknown_size += 1
    return found
