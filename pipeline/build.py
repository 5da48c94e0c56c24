"""`mv4d build`: assets in, shards out, in one streaming run. Here all stages are put in a row."""

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console

from curate.__main__ import print_summary
from curate.decide import decide
from curate.report import write_report
from curate.rules import Preset, load_preset
from curate.score import Score
from curate.scores_view import Scope
from ingest.duplicates import mark_duplicates
from ingest.fetch import FetchSettings
from ingest.licence import LicencePolicy, PolicyName
from ingest.recheck import list_items
from ingest.sources.lists import Only, Sites
from ingest.sources.open_source import open_source
from ingest.sources.source import Source
from ingest.stage import Ingest
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver
from pipeline.stage import Stage
from pipeline.storage import Store
from pipeline.tables import Tables
from pipeline.truth_media import passes_of
from render.draw import Render
from render.environments import with_pictures
from render.look import Look, QualityName
from render.plan import Gate, Plan
from render.preflight import settle_device
from render.presets import add_preset_option
from render.probe import ProbeAsset
from render.rigs import Cameras, RigName
from render.supervisor import BlenderSettings
from render.truth import GroundTruth
from render.windows import WindowSettings
from shards.__main__ import print_lint_report, print_pack_report
from shards.cards import write_cards
from shards.lint import lint
from shards.pack import Packer
from shards.plan import PackSettings
from shards.statistics import print_stats

logger = logging.getLogger("mv4d.build")


@dataclass(frozen=True, kw_only=True)
class BuildOptions(RunOptions):
    """Settings of all stages that people change; the others keep their defaults."""

    policy: PolicyName = "open"
    """Licences to admit. open: CC0, permissive, CC BY and BY-SA. commercial_safe: without BY-SA. permissive_only:
    without CC BY too. research: NC as well. custom: only what --allow names."""
    allow: str = ""
    """SPDX ids or licence classes to admit beside the policy's own, by commas."""
    honour_noai: bool = True
    """Leave out what its author reserved from generative AI."""
    licence: str = ""
    """SPDX id for files of which nothing else is said. Claim only what you know."""
    rig: RigName = "mv16"
    """Cameras: mv16, ortho4, orbit16 and orbit24 (with the static twin), front, random, diffusion4d."""
    quality: QualityName = "standard"
    """preview, standard, high or diffusion4d; docs/rendering.md shows them."""
    size_px: int = 256
    """Pixels a side."""
    max_animations: int = 6
    """Actions of an asset that are drawn; 0 is no limit."""
    choose: Literal["by_seed", "first"] = "by_seed"
    """Which are drawn, where there are more: any that pass the gate, or the file's first."""
    seed: int = 0
    """Draws cameras and animations."""
    passes: str = ""
    """Ground truth to add to each clip, by commas: depth, normal, camera_normal, flow, view_flow, coordinates, ids,
    tracks, or all. docs/ground_truth.md says what they are."""
    preset: str = "default"
    """Rules that decide which clips are kept: a name, or a YAML file."""
    windows: WindowSettings = field(default_factory=WindowSettings)
    gate: Gate = field(default_factory=Gate)
    cameras: Cameras = field(default_factory=Cameras)
    look: Look = field(default_factory=Look)
    shard_mb: float = 1000.0
    """A shard is closed when the next asset would take its pictures over so many million bytes."""
    split_seed: int = 0
    """Another seed deals asset families anew to train, val and test."""
    val_share: float = 0.02
    test_share: float = 0.02
    only: Only = field(default_factory=Only)
    sites: Sites = field(default_factory=Sites)
    fetch: FetchSettings = field(default_factory=FetchSettings)
    blender: BlenderSettings = field(default_factory=BlenderSettings)

    @property
    def pack(self) -> PackSettings:
        """What may be packed: what the policy admits at ingest, judged again."""
        allow = tuple(entry.strip() for entry in self.allow.split(",") if entry.strip())
        return PackSettings(
            shard_mb=self.shard_mb,
            split_seed=self.split_seed,
            val_share=self.val_share,
            test_share=self.test_share,
            allowed_classes=LicencePolicy(name=self.policy, allow=allow).classes,
            admit_noai=not self.honour_noai,
        )

    def open_source(self, spec: str) -> Source:
        """The source that an argument means.

        Raises:
            ValueError: It means none.
        """
        return open_source(spec, licence=self.licence, only=self.only, sites=self.sites, fetch=self.fetch)

    def stages(self) -> list[Stage[Any, Any]]:
        """The chain, in the order in which rows flow.

        Raises:
            ValueError: A setting is refused.
        """
        data = absolute_root(self.data)
        passes = passes_of(self.passes)
        return [
            Ingest(
                data=data,
                policy=self.policy,
                allow=self.allow,
                honour_noai=self.honour_noai,
                fetch=self.fetch,
                sites=self.sites,
            ),
            ProbeAsset(data=data, windows=self.windows, blender=self.blender),
            Plan(
                data=data,
                rig=self.rig,
                cameras=self.cameras,
                quality=self.quality,
                look=with_pictures(self.look, Store(data), self.blender),
                size_px=self.size_px,
                gate=self.gate,
                max_animations=self.max_animations,
                choose=self.choose,
                seed=self.seed,
            ),
            Render(data=data, blender=self.blender),
            *([GroundTruth(data=data, passes=passes, blender=self.blender)] if passes else []),
            Score(data=data),
        ]


class StreamingPacker:
    """Packs in the background what is certain, while the run goes on.

    What a shard holds is decided by the order of the input, so everything before the watermark is final.
    """

    def __init__(self, tables: Tables, preset: Preset, packer: Packer, seqs: Sequence[int], every_s: float) -> None:
        self._tables, self._preset, self._packer = tables, preset, packer
        self._seqs = seqs
        self._every_s = every_s
        self._up_to_seq = 0
        self._changed = threading.Event()
        self._ending = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="mv4d-packer", daemon=True)
        self._thread.start()

    def advance(self, num_finished: int) -> None:
        """All inputs before this one, in the run's order, are finished."""
        self._up_to_seq = self._seqs[num_finished] if num_finished < len(self._seqs) else self._seqs[-1] + 1
        self._changed.set()

    def close(self) -> None:
        """Wait for the packing under way.

        Raises:
            BaseException: What ended the packing early.
        """
        self._ending.set()
        self._changed.set()
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            if self._ending.is_set():
                return
            try:
                decide(self._tables, self._preset, Scope(up_to_seq=self._up_to_seq))
                for path in self._packer.pack(self._up_to_seq).written:
                    logger.info("wrote %s", path)
            except (OSError, ValueError, RuntimeError) as error:
                self._failed = error
                return
            self._ending.wait(self._every_s)


def build(options: BuildOptions, specs: Sequence[str], *, report: bool = True) -> int:
    """Run everything; returns the exit code.

    Raises:
        ValueError: A setting or a source is refused.
        RuntimeError: The machine cannot go on; the same call resumes.
    """
    options = settle_device(options, options.blender, options.look.engine)
    stages = options.stages()
    preset = load_preset(options.preset)
    sources = [options.open_source(spec) for spec in specs]
    tables = options.tables
    with sole_driver(tables.store):
        items = list_items(tables, sources)
        if not items:
            raise ValueError(f"nothing to do: no 3D files in {', '.join(specs)}")
        packer = Packer(tables, options.pack)
        # A decision query takes seconds on millions of clips, so it is not asked for more often than it pays.
        streaming = StreamingPacker(tables, preset, packer, [item.seq for item in items], every_s=10.0)
        try:
            run_stages(
                options,
                stages,
                iter(items),
                heading="mv4d build",
                num_inputs=len(items),
                on_watermark=streaming.advance,
            )
        finally:
            streaming.close()
        return finish(options, tables, preset, packer, report=report)


def finish(options: BuildOptions, tables: Tables, preset: Preset, packer: Packer, *, report: bool) -> int:
    """What can only be done when all is rendered: duplicates, decisions, last shards, cards, lint, figures, page."""
    console = Console(stderr=True, quiet=options.quiet)
    mark_duplicates(tables)
    print_summary(decide(tables, preset), console)
    packed = packer.pack()
    print_pack_report(packed, console)
    if packed.num_samples:
        write_cards(tables)
    checked = lint(tables)
    print_lint_report(checked, console)
    if report:
        path = write_report(tables, preset, quiet=options.quiet)
        console.print(f"contact sheet: {path}", highlight=False, soft_wrap=True)
    sums = options.quiet or print_stats(tables)
    return EXIT_OK if sums and not checked.findings else EXIT_FINDINGS


def main(arguments: Sequence[str] | None = None) -> int:
    """`mv4d build`."""
    parser = command_parser(
        "build",
        "Assets in, curated multi-view video shards out, in one run that streams and resumes. SOURCES are folders, "
        "3D files, manifests (.csv, .jsonl, .parquet) of paths or URLs, or the word `samples`.",
        """mv4d build samples --data demo-data --rig ortho4 --quality preview --size 128
        mv4d build assets/catalog.csv --data data --rig mv16
        mv4d build models/ --licence CC0-1.0 --data data --estimate
        mv4d build catalog.csv --data s3://bucket/set --policy commercial_safe --preset diffusion4d
        mv4d build catalog.csv --data data --gate.min_motion 0.01 --look.storage small
        mv4d build catalog.csv --data data --as diffusion4d --preset diffusion4d
        ray job submit --working-dir . -- python -m pipeline build /shared/catalog.csv --data /shared/set""",
    )
    parser.add_argument("sources", nargs="+", type=str, help="What to build from.")
    parser.add_argument("--dry_run", action="store_true", help="Only count, by licence and format.")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="Count, fetch and measure up to 20 inputs, draw some pictures of them, and say what all would cost.",
    )
    parser.add_class_arguments(BuildOptions, None)
    given = list(sys.argv[1:] if arguments is None else arguments)
    add_preset_option(parser, given)
    namespace = parse(parser, given)
    options = pick(BuildOptions, namespace)
    try:
        if namespace.dry_run or namespace.estimate:
            from pipeline.estimate import dry_run_build, estimate_build

            return (estimate_build if namespace.estimate else dry_run_build)(options, namespace.sources)
        return build(options, namespace.sources)
    except ValueError as error:
        usage_error(str(error))


if __name__ == "__main__":
    sys.exit(main())
