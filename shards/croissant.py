"""`croissant.json`: the data set for machines, in MLCommons' vocabulary (https://docs.mlcommons.org/croissant/)."""

import datetime
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlcroissant as mlc

from shards.attribution import LicenceCount, text_url
from shards.release import COLUMNS
from shards.views import Shard

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


def croissant_json(about: About, shards: Sequence[Shard], licences: Sequence[LicenceCount], index: bytes) -> bytes:
    """The description, checked by mlcroissant.

    Args:
        about: Words.
        shards: All tars.
        licences: Of the assets in them.
        index: The bytes of `samples.parquet`.

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
            distribution=[*_files(shards, index), *_file_sets(shards)],
            record_sets=[_records()],
        )
        # Through the text and back: what is written is what was checked.
        content: Any = metadata.to_json()
        mlc.Metadata.from_json(mlc.Context(), json.loads(json.dumps(content, default=str)))
    finally:
        quiet.setLevel(level)
    return (json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def _files(shards: Sequence[Shard], index: bytes) -> list[mlc.FileObject]:
    table = mlc.FileObject(
        id="samples.parquet",
        name="samples.parquet",
        description="Index of all samples: where each member of each tar lies, and what it shows.",
        content_url="samples.parquet",
        content_size=f"{len(index)} B",
        encoding_formats=["application/x-parquet"],
        sha256=hashlib.sha256(index).hexdigest(),
    )
    tars = [
        mlc.FileObject(
            id=shard.shard.removeprefix("shards/"),
            name=shard.shard.removeprefix("shards/"),
            description=f"WebDataset tar, {shard.num_samples} samples, {shard.licence_class}, {shard.split}.",
            content_url=shard.shard.removeprefix("shards/"),
            content_size=f"{shard.num_bytes} B",
            encoding_formats=["application/x-tar"],
            sha256=shard.sha256,
        )
        for shard in shards
    ]
    return [table, *tars]


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


def _records() -> mlc.RecordSet:
    kinds = {
        "string": mlc.DataType.TEXT,
        "integer": mlc.DataType.INTEGER,
        "number": mlc.DataType.FLOAT,
        "boolean": mlc.DataType.BOOL,
    }
    fields = [
        mlc.Field(
            id=f"samples/{column.name}",
            name=column.name,
            description=column.meaning,
            data_types=[kinds[column.kind]],
            source=mlc.Source(file_object="samples.parquet", extract=mlc.Extract(column=column.name)),
        )
        for column in COLUMNS
        if column.kind in kinds
    ]
    return mlc.RecordSet(
        id="samples",
        name="samples",
        description="One row a sample.",
        key=["samples/key"],
        fields=fields,
    )
