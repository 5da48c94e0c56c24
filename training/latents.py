"""`mv4d latents`, `python -m training.latents`: encode clips once, so that training reads latents alone.

Writes tars whose samples have the keys of the shards' samples, a few hundred to a tar, and an index like theirs. Each
tar appears whole or not at all; given the same command again, the stage goes on where it was cut off.
"""

import contextlib
import dataclasses
import io
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.progress_bar import progress_bar
from pipeline.records import content_id
from pipeline.revoked import REVOKED
from pipeline.storage import Store
from pipeline.tars import HashingWriter, add_member
from training.data.clips import ClipDataset, ClipRecord, ClipSettings, Example, logger
from training.data.index import INDEX, BrokenSample, Part, Row, SampleIndex, Selection, ShardReader, selected_rows
from training.data.latents import (
    ABOUT,
    EMPTY_TEXT,
    TEXT,
    AboutLatents,
    Precision,
    encode,
    encode_text,
    variant_name,
)
from training.encoders import Encoders

FRAGMENTS = "index"
"""The folder with the index of each tar."""
PAPERS = ("ATTRIBUTION.md", "attribution.parquet", REVOKED)
"""What goes with the shards wherever they go: latents are made of the same works."""
FAULT = "fault.txt"
"""The only member of a sample that cannot be read: why."""
VARIANTS = ClipSettings(num_variants=4)
"""All ways to take four evenly spaced views of sixteen."""


@dataclass(frozen=True, kw_only=True)
class LatentSettings:
    """What is encoded, and how it is stored."""

    clips: ClipSettings = VARIANTS
    """What of a clip becomes an example, and in how many variants; training takes these settings from the latents."""
    selection: Selection = field(default_factory=Selection)
    store_as: Precision = "float16"
    """Of latents and embeddings. 512 KiB a variant of 4 views by 16 frames at 256 px with two bytes a number."""
    samples_per_tar: int = 256
    """What is lost at most when the stage is killed."""
    pictures_at_once: int = 16
    """Pictures that the VAE encodes together."""
    num_workers: int = 2
    """Processes that read and decode; 0 does it between the encoding."""
    task: int = 0
    """The number of this process among those that share the work, from 0: `$SLURM_ARRAY_TASK_ID`."""
    num_tasks: int = 1
    """How many processes share the work, each taking every so manieth tar."""

    def __post_init__(self) -> None:
        if self.clips.num_variants < 1:
            raise ValueError("latents need a number of variants: clips.num_variants must be at least 1")
        asked = (self.clips.num_views, self.clips.num_frames)
        if asked != (self.selection.num_views, self.selection.num_frames):
            raise ValueError(f"clips want {asked} views and frames, the selection {self.selection}")
        if min(self.samples_per_tar, self.pictures_at_once) < 1 or self.num_workers < 0:
            raise ValueError("samples_per_tar and pictures_at_once must be at least 1, num_workers at least 0")
        if not 0 <= self.task < self.num_tasks:
            raise ValueError(f"task must lie in 0..{self.num_tasks - 1}, got {self.task}")


@dataclass
class LatentReport:
    """What a call did, and what there is after it."""

    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Tars of other tasks that are not there yet: until they are, there is no index to train by."""
    num_samples: int = 0
    """In the tars of this task."""
    num_encoded: int = 0
    """Samples that this call encoded."""
    broken: list[str] = field(default_factory=list)
    """Keys of samples of this task that cannot be read. They keep their places, and the next call tries them again."""


@dataclass(frozen=True)
class _Tar:
    """Some samples of a shard, one after the other."""

    path: str
    rows: pa.Table
    """Of the shards' index."""

    @property
    def fragment(self) -> str:
        """Path of its index."""
        return f"{FRAGMENTS}/{self.path.removesuffix('.tar').replace('/', '.')}.parquet"


class LatentWriter:
    """Brings a folder of latents in line with the shards, the encoders and the settings."""

    def __init__(
        self,
        shards: str,
        out: str,
        encoders: Encoders,
        settings: LatentSettings,
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Look at what is there.

        Args:
            shards: Folder or fsspec URL of the shards, or of the data root that holds them.
            out: Where the latents go.
            encoders: What encodes.
            settings: What is encoded.
            on_progress: Called with how many samples of this task are done, and of how many.

        Raises:
            FileNotFoundError: There are no shards.
            ValueError: Nothing is selected, or `out` holds latents of other settings or encoders.
        """
        self._root, rows = selected_rows(shards, settings.selection)
        self._source, self._store = Store(self._root), Store(out)
        self._encoders, self._settings, self._on_progress = encoders, settings, on_progress
        self._about = AboutLatents(clips=settings.clips, encoders=encoders.fingerprint(), store_as=settings.store_as)
        self._begin()
        self._planned = _plan(rows, settings.samples_per_tar)
        self._known = {tar.path: self._rows_there(tar.fragment) for tar in self._planned}

    def run(self) -> LatentReport:
        """Write what is missing; the last of the tasks to finish writes the index."""
        report = LatentReport()
        mine = self._planned[self._settings.task :: self._settings.num_tasks]
        total = sum(tar.rows.num_rows for tar in mine)
        for tar in mine:
            if self._is_current(tar) and not _broken(self._known[tar.path]):
                report.unchanged.append(tar.path)
            else:
                self._write(tar, report, total)
                report.written.append(tar.path)
            report.num_samples += tar.rows.num_rows
            report.broken += _broken(self._known[tar.path])
            self._on_progress(report.num_samples, total)
        for tar in self._planned:
            self._known[tar.path] = self._rows_there(tar.fragment)  # other tasks may have written since
        report.missing = [tar.path for tar in self._planned if not self._is_current(tar)]
        if not report.missing:
            self._finish(report)
        return report

    def _begin(self) -> None:
        if self._settings.num_tasks == 1:
            self._store.remove_partial("")
        if self._store.exists(ABOUT):
            there = AboutLatents.read(self._store)
            if there != self._about:
                theirs, ours = dataclasses.asdict(there), dataclasses.asdict(self._about)
                differ = ", ".join(f"{name} {theirs[name]}" for name in ours if ours[name] != theirs[name])
                raise ValueError(
                    f"{self._store.root} holds latents of other {differ}: give another --out, or remove it"
                )
            return
        empty = {"text": encode_text("", self._encoders, self._settings.store_as)}
        self._store.write_bytes(EMPTY_TEXT, _safetensors(empty))
        self._store.write_bytes(ABOUT, self._about.to_json())

    def _rows_there(self, fragment: str) -> list[dict[str, Any]]:
        if not self._store.exists(fragment):
            return []
        return list(_read_parquet(self._store, fragment).to_pylist())

    def _is_current(self, tar: _Tar) -> bool:
        wanted = [(row["key"], _pictures_of(row), _words_of(row)) for row in tar.rows.to_pylist()]
        found = [(row["key"], row["pictures"], row["words"]) for row in self._known[tar.path]]
        return found == wanted and self._store.exists(tar.path)

    def _write(self, tar: _Tar, report: LatentReport, total: int) -> None:
        rows = tar.rows.to_pylist()
        kept = self._reusable(rows)
        encoded = self._encoded(tar.rows.filter(pa.array([row["key"] not in kept for row in rows])))
        with self._store.writer(tar.path) as file:
            with tarfile.open(fileobj=HashingWriter(file), mode="w", format=tarfile.USTAR_FORMAT) as packed:  # type: ignore[call-overload]
                for number, row in enumerate(rows):
                    start = packed.offset
                    members = self._kept(kept[row["key"]], row) if row["key"] in kept else next(encoded)
                    report.num_encoded += row["key"] not in kept
                    row["pictures"], row["words"] = _pictures_of(row), _words_of(row)
                    row["parts"] = [
                        dataclasses.asdict(add_member(packed, row["key"], name, content)) for name, content in members
                    ]
                    row["shard"], row["offset"], row["num_bytes"] = tar.path, start, packed.offset - start
                    self._on_progress(report.num_samples + number + 1, total)
            # The index goes before the tar and comes after it, so that it never speaks of other bytes.
            self._store.remove(INDEX)
            self._store.remove(tar.fragment)
        schema = tar.rows.schema.append(pa.field("pictures", pa.string())).append(pa.field("words", pa.string()))
        self._store.write_bytes(tar.fragment, _parquet(pa.Table.from_pylist(rows, schema)))
        self._known[tar.path] = rows

    def _reusable(self, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """What was encoded before of some samples, by key: rows of an earlier index. After a take-down, nearly all."""
        wanted = {row["key"]: row for row in rows}
        found = {}
        for there in (row for known in self._known.values() for row in known):
            row = wanted.get(there["key"])
            if row and there["pictures"] == _pictures_of(row) and not _broken([there]):
                with contextlib.suppress(BrokenSample, FileNotFoundError):
                    _members(ShardReader(self._store.root), there)
                    if there["words"] != _words_of(row):
                        _members(ShardReader(self._root), row, "json")
                    found[row["key"]] = there
        return found

    def _kept(self, there: dict[str, Any], row: dict[str, Any]) -> list[tuple[str, bytes]]:
        """The members of a sample that was encoded before; its words anew, if it is now described otherwise."""
        members = _members(ShardReader(self._store.root), there)
        if there["words"] == _words_of(row):
            return members
        ((_, record),) = _members(ShardReader(self._root), row, "json")
        return [("json", record), self._text(ClipRecord.parse(record).caption), *members[2:]]

    def _encoded(self, rows: pa.Table) -> Iterator[list[tuple[str, bytes]]]:
        """The members of each sample; `FAULT` alone if it is broken."""
        settings = self._settings
        clips = ClipDataset(SampleIndex(self._root, rows), settings.clips)
        examples = iter(DataLoader(_Variants(clips), batch_size=None, num_workers=settings.num_workers))
        for place in range(rows.num_rows):
            shown: list[Example | str] = [next(examples) for _ in range(settings.clips.num_variants)]
            whole = [example for example in shown if not isinstance(example, str)]
            if len(whole) < len(shown):
                fault = next(example for example in shown if isinstance(example, str))
                logger.warning("passed over the broken sample %s: %s", clips.index[place].key, fault)
                yield [(FAULT, fault.encode())]
            else:
                yield self._sample(clips.index[place], clips, whole)

    def _sample(self, row: Row, clips: ClipDataset, examples: Sequence[Example]) -> list[tuple[str, bytes]]:
        settings = self._settings
        members = [("json", clips.read(row, "json")), self._text(examples[0]["caption"])]
        for variant, example in enumerate(examples):
            encoded = encode(example, self._encoders, settings.store_as, at_once=settings.pictures_at_once)
            shown = {name: encoded[name] for name in ("latents", "image_embeds", "cameras")}
            members.append((variant_name(variant), _safetensors(shown)))
        return members

    def _text(self, caption: str) -> tuple[str, bytes]:
        return TEXT, _safetensors({"text": encode_text(caption, self._encoders, self._settings.store_as)})

    def _finish(self, report: LatentReport) -> None:
        """Remove what is no longer wanted of this split, and write the index over all splits."""
        wanted = {tar.path for tar in self._planned}
        tables = []
        for fragment in self._store.list_files(FRAGMENTS, ".parquet"):
            table = _read_parquet(self._store, fragment)
            (path, split), *_ = zip(table["shard"].to_pylist(), table["split"].to_pylist(), strict=True)
            if split == self._settings.selection.split and path not in wanted:
                for stale in (INDEX, fragment, path):
                    self._store.remove(stale)
                report.removed.append(path)
            else:
                tables.append(table)
        for paper in PAPERS:
            if self._source.exists(paper):
                self._store.write_bytes(paper, self._source.read_bytes(paper))
        whole = pa.concat_tables(tables).sort_by([("shard", "ascending"), ("offset", "ascending")])
        self._store.write_bytes(INDEX, _parquet(whole))


class _Variants(Dataset[Example | str]):
    """All variants of some samples, one sample after the other; of what is broken, the fault."""

    def __init__(self, clips: ClipDataset) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips) * self._clips.settings.num_variants

    def __getitem__(self, place: int) -> Example | str:
        number, variant = divmod(place, self._clips.settings.num_variants)
        try:
            return self._clips.example(self._clips.index[number], variant)
        except BrokenSample as error:
            return str(error)


def _plan(rows: pa.Table, samples_per_tar: int) -> list[_Tar]:
    starts: dict[str, list[int]] = {}
    for place, shard in enumerate(rows["shard"].to_pylist()):
        starts.setdefault(shard, [place, place])[1] = place + 1
    return [
        _Tar(
            path=f"{shard.removesuffix('.tar')}-{number:04d}.tar",
            rows=rows.slice(start, min(samples_per_tar, last - start)),
        )
        for shard, (first, last) in starts.items()
        for number, start in enumerate(range(first, last, samples_per_tar))
    ]


def _pictures_of(row: dict[str, Any]) -> str:
    """Id of the pictures of a sample and of their cameras, wherever it is packed."""
    strips = [(part["name"], part["sha256"]) for part in row["parts"] if part["name"] != "json"]
    return content_id(row["clip_id"], strips)


def _words_of(row: dict[str, Any]) -> str:
    """Hash of the record of a sample, which has its caption and credits."""
    return str(next(part["sha256"] for part in row["parts"] if part["name"] == "json"))


def _broken(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["key"] for row in rows if [part["name"] for part in row["parts"]] == [FAULT]]


def _members(reader: ShardReader, row: dict[str, Any], *names: str) -> list[tuple[str, bytes]]:
    """Members of a sample by the row of its index: some, or all."""
    try:
        return [
            (part["name"], reader.read(row["shard"], Part(part["offset"], part["num_bytes"], part["crc32"])))
            for part in row["parts"]
            if not names or part["name"] in names
        ]
    finally:
        reader.close()


def _safetensors(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _read_parquet(store: Store, path: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.read_bytes(path)))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode a data set; returns the exit code."""
    parser = command_parser(
        "latents",
        "Encode the clips of a data set once: VAE latents of several variants of each clip, and the text and image "
        "embeddings. Training from them reads no picture and loads no encoder. Given again, goes on where it was.",
        """mv4d latents --data data --out latents --encoders mvdream-sd1.5 --image_encoder clip-vit-h
        mv4d latents --data data --out latents --encoders mvdream-sd1.5 --selection.split val
        mv4d latents --config latents.yaml --num_tasks 8 --task $SLURM_ARRAY_TASK_ID""",
    )
    parser.add_argument("--data", type=str, default="data", help="The shards, or the data root: folder or fsspec URL.")
    parser.add_argument("--out", type=str, required=True, help="Where the latents go: a folder or fsspec URL.")
    parser.add_argument(
        "--encoders",
        type=str,
        required=True,
        help="Folder with vae, text_encoder and tokenizer, as diffusers has them.",
    )
    parser.add_argument(
        "--image_encoder", type=str, default="", help="CLIP's, if it is not in the folder of the others."
    )
    parser.add_argument(
        "--device", type=str, default="auto", help="Such as cpu or cuda:0; auto takes a GPU if there is."
    )
    parser.add_argument("--compute", type=Precision, default="float32", help="What the encoders compute in.")
    parser.add_class_arguments(LatentSettings, None)
    for name in ("num_views", "num_frames"):
        parser.link_arguments(f"clips.{name}", f"selection.{name}")
    namespace = parse(parser, arguments)
    settings = pick(LatentSettings, namespace)
    device = namespace.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        encoders = Encoders.load(
            namespace.encoders,
            image_encoder=namespace.image_encoder,
            device=device,
            dtype=getattr(torch, namespace.compute),
        )
        with progress_bar("encoding", "samples") as on_progress:
            report = LatentWriter(namespace.data, namespace.out, encoders, settings, on_progress=on_progress).run()
    except (ValueError, FileNotFoundError) as error:
        usage_error(str(error))
    _print(report, namespace.out)
    return EXIT_FINDINGS if report.broken else EXIT_OK


def _print(report: LatentReport, out: str) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"[bold]{report.num_samples}[/] samples in {len(report.written) + len(report.unchanged)} tars: "
        f"{len(report.written)} written, {len(report.unchanged)} unchanged, {len(report.removed)} removed; "
        f"{report.num_encoded} samples encoded now"
    )
    if report.broken:
        console.print(f"[yellow]{len(report.broken)} samples cannot be read[/]: {', '.join(report.broken[:10])}")
    if report.missing:
        console.print(f"{len(report.missing)} tars of other tasks are missing: the last task to end writes the index")
    else:
        console.print(f"train from {out}")


if __name__ == "__main__":
    sys.exit(main())
