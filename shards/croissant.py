"""`croissant.json`: the data set for machines, in MLCommons' vocabulary (https://docs.mlcommons.org/croissant/)."""

import datetime
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlcroissant as mlc

from pipeline.truth_media import MEANINGS, TRACKS_NAME
from shards.attribution import LicenceCount, text_url
from shards.release import COLUMNS, TRUTH_COLUMNS, Column
from shards.views import Shard, TruthShard

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"


@dataclass(frozen=True, kw_only=True)
class About:
    """What is said of the data set as a whole."""

    name: str
    description: str
    version: str
    homepage: str
    publisher: str
    cite_as: str
    published: datetime.datetime | None
    collection: str
    processing: str
    uses: tuple[str, ...]
    limits: tuple[str, ...]
    personal: str


@dataclass(frozen=True, kw_only=True)
class TruthFiles:
    """Ground truth beside the shards."""

    shards: Sequence[TruthShard]
    """All of its tars."""
    index: bytes
    """Of `truth.parquet`."""


def croissant_json(
    about: About,
    shards: Sequence[Shard],
    licences: Sequence[LicenceCount],
    index: bytes,
    truth: TruthFiles | None = None,
) -> bytes:
    """The description, checked by mlcroissant.

    Args:
        about: Words.
        shards: All tars.
        licences: Of the assets in them.
        index: The bytes of `samples.parquet`.
        truth: Ground truth, if there is any.

    Raises:
        mlcroissant.ValidationError: Something in it breaks the standard.
    """
    quiet = logging.getLogger("absl")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        metadata = mlc.Metadata(
            name=about.name,
            description=about.description,
            version=about.version,
            url=about.homepage or None,
            cite_as=about.cite_as or None,
            conforms_to=[CONFORMS_TO],
            date_published=about.published,
            license=sorted({text_url(licence) or licence.spdx for licence in licences}),
            publisher=[mlc.Organization(name=about.publisher)] if about.publisher else [],
            keywords=["multi-view video", "4D", "animation", "3D", "synthetic"],
            data_collection=about.collection,
            data_preprocessing_protocol=[about.processing],
            data_use_cases=list(about.uses),
            data_limitations=list(about.limits),
            personal_sensitive_information=[about.personal],
            distribution=[
                *_files(shards, index),
                *_file_sets(shards),
                *(_truth_files(truth) if truth else ()),
                *(_truth_file_sets(truth.shards) if truth else ()),
            ],
            record_sets=[
                _records("samples", "One row a sample.", ["key"], COLUMNS),
                *([_records("truth", "One row a sample and pass.", ["key", "name"], TRUTH_COLUMNS)] if truth else ()),
            ],
        )
        # Through the text and back: what is written is what was checked.
        content: Any = metadata.to_json()
        mlc.Metadata.from_json(mlc.Context(), json.loads(json.dumps(content, default=str)))
    finally:
        quiet.setLevel(level)
    return (json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _files(shards: Sequence[Shard], index: bytes) -> list[mlc.FileObject]:
    table = _index_file(
        "samples.parquet", "Index of all samples: where each member of each tar lies, and what it shows.", index
    )
    return [table, *(_tar_file(shard, "samples") for shard in shards)]


def _truth_files(truth: TruthFiles) -> list[mlc.FileObject]:
    table = _index_file("truth.parquet", "Index of the ground truth: where each member of its tars lies.", truth.index)
    return [table, *(_tar_file(shard, f"keys with {shard.name}") for shard in truth.shards)]


def _index_file(name: str, description: str, content: bytes) -> mlc.FileObject:
    return mlc.FileObject(
        id=name,
        name=name,
        description=description,
        content_url=name,
        content_size=f"{len(content)} B",
        encoding_formats=["application/x-parquet"],
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _tar_file(shard: Shard | TruthShard, holds: str) -> mlc.FileObject:
    path = shard.shard.removeprefix("shards/")
    return mlc.FileObject(
        id=path,
        name=path,
        description=f"WebDataset tar, {shard.num_samples} {holds}, {shard.licence_class}, {shard.split}.",
        content_url=path,
        content_size=f"{shard.num_bytes} B",
        encoding_formats=["application/x-tar"],
        sha256=shard.sha256,
    )


def _file_sets(shards: Sequence[Shard]) -> list[mlc.FileSet]:
    tars = [shard.shard.removeprefix("shards/") for shard in shards]
    return [
        mlc.FileSet(
            id="records",
            name="records",
            description="KEY.json: cameras, texts, licence and hashes of a sample.",
            contained_in=tars,
            encoding_formats=["application/json"],
            includes=["*.json"],
        ),
        mlc.FileSet(
            id="strips",
            name="strips",
            description="KEY.vNN.webp: the frames of one view, stacked top to bottom, RGBA.",
            contained_in=tars,
            encoding_formats=["image/webp"],
            includes=["*.webp"],
        ),
    ]


def _truth_file_sets(shards: Sequence[TruthShard]) -> list[mlc.FileSet]:
    tars: dict[str, list[str]] = {}
    for shard in shards:
        tars.setdefault(shard.name, []).append(shard.shard.removeprefix("shards/"))
    records = mlc.FileSet(
        id="truth-records",
        name="truth-records",
        description="KEY.json beside ground truth: how to read it, licence and hashes.",
        contained_in=[path for paths in tars.values() for path in paths],
        encoding_formats=["application/json"],
        includes=["*.json"],
    )
    return [records, *(_truth_file_set(name, paths) for name, paths in tars.items())]


def _truth_file_set(name: str, tars: list[str]) -> mlc.FileSet:
    is_archive = name == "tracks"
    member = TRACKS_NAME if is_archive else f"vNN.{name}.png"
    return mlc.FileSet(
        id=f"truth-{name}",
        name=f"truth-{name}",
        description=f"KEY.{member}: {MEANINGS.get(name, name)}.",
        contained_in=tars,
        encoding_formats=["application/zip" if is_archive else "image/png"],
        includes=[f"*.{TRACKS_NAME}" if is_archive else f"*.{name}.png"],
    )


def _records(table: str, description: str, key: Sequence[str], columns: Sequence[Column]) -> mlc.RecordSet:
    """The rows of `<table>.parquet`."""
    kinds = {
        "string": mlc.DataType.TEXT,
        "integer": mlc.DataType.INTEGER,
        "number": mlc.DataType.FLOAT,
        "boolean": mlc.DataType.BOOL,
    }
    fields = [
        mlc.Field(
            id=f"{table}/{column.name}",
            name=column.name,
            description=column.meaning,
            data_types=[kinds[column.kind]],
            source=mlc.Source(file_object=f"{table}.parquet", extract=mlc.Extract(column=column.name)),
        )
        for column in columns
        if column.kind in kinds
    ]
    return mlc.RecordSet(
        id=table,
        name=table,
        description=description,
        key=[f"{table}/{column}" for column in key],
        fields=fields,
    )
