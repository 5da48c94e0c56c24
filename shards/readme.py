"""The words of the data card: `README.md`, whose header the Hugging Face hub reads."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import duckdb
import yaml

from pipeline.storage import Store
from pipeline.truth_media import MEANINGS
from shards.attribution import DUTIES, LicenceCount, count, escaped, link, text_url
from shards.fields import field_table
from shards.plan import REVOKED, SPLITS
from shards.release import CHANGES_PAGE, COLUMNS
from shards.sample import CONVENTION, SampleRecord
from shards.views import rows

# fmt: off
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "zlib", "wtfpl", "cc0-1.0", "pddl",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "odc-by",
})
# fmt: on
"""Of the licence ids that the Hugging Face hub knows, those that an asset may have."""

USES = (
    "training and evaluation of multi-view video, novel-view and 4D models",
    "research on motion, cameras and reconstruction with exact ground truth",
)
LIMITS = (
    "Renders of 3D models, not photographs: lights, materials and backgrounds are simpler than the world's.",
    "Motion is what animators made: walks, attacks, idles and machines are frequent, everyday human motion is rare.",
    "Titles and tags are their authors' words, in any language, unchecked; action names are often only technical.",
    "Licences are as stated by the source on the day in `checked_on`; nobody has asked the authors.",
)
PERSONAL = (
    "Author names and page addresses are kept for attribution, as the licences ask. "
    "Models may depict real people; this was not checked."
)


@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """What the card says that the tables do not know."""

    name: str = "mv4d data set"
    """Heading of the card."""
    description: str = ""
    """A sentence or two on what is in it; made from the figures if empty."""
    version: str = "1.0.0"
    """Of the data set, as semantic version."""
    homepage: str = ""
    """URL of the data set's page."""
    publisher: str = ""
    """Who answers for it."""
    cite_as: str = ""
    """BibTeX."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("name must not be empty")


@dataclass(frozen=True)
class Facts:
    """What the card says of what is in the shards."""

    licences: list[LicenceCount]
    splits: list[dict[str, Any]]
    """One a split: assets, animations, samples, videos, pictures, bytes."""
    total: dict[str, Any]
    places: list[dict[str, Any]]
    """One a licence class and split that has shards."""
    shapes: list[dict[str, Any]]
    """One a rig, views, frames, size."""
    made_with: dict[str, Any]
    has_revoked: bool
    has_changes: bool
    truth: list[dict[str, Any]]
    """One a pass of ground truth: samples that have it, bytes."""

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, licences: list[LicenceCount], store: Store) -> "Facts":
        """Ask the tables."""
        figures = rows(con, files("shards").joinpath("stats", "splits.sql").read_text("utf-8"))
        by_split = {row["split"]: row for row in figures}
        shapes = """
            SELECT
                rig, num_views, num_frames, width, height, min(fps) AS least_fps, max(fps) AS most_fps,
                count(*) AS num_samples
            FROM clips_full WHERE shard IS NOT NULL GROUP BY ALL
            ORDER BY num_samples DESC, rig, num_views, num_frames, width, height"""
        made_with = """
            SELECT
                coalesce(list_sort(list(DISTINCT blender_version) FILTER (blender_version != '')), []) AS blender,
                coalesce(list_sort(list(DISTINCT quality) FILTER (format = 'rendered')), []) AS imported,
                count(*) FILTER (format = 'rendered') AS num_imported,
                count(*) FILTER (backdrop != '') AS num_opaque,
                coalesce(list_sort(list(DISTINCT preset) FILTER (preset IS NOT NULL)), []) AS presets,
                coalesce(list_sort(list(DISTINCT checked_on) FILTER (checked_on != '')), []) AS checked
            FROM clips_full WHERE shard IS NOT NULL"""
        places = """
            SELECT licence_class, split, count(*) AS num_shards, sum(num_samples) AS num_samples
            FROM shards GROUP BY ALL ORDER BY ALL"""
        truth = """
            SELECT name, sum(num_samples - num_missing) AS num_samples, sum(num_bytes) AS num_bytes
            FROM truth_shards GROUP BY name ORDER BY name"""
        return cls(
            licences=licences,
            splits=[by_split[split] for split in SPLITS if split in by_split],
            total=by_split["all"],
            places=rows(con, places),
            shapes=rows(con, shapes),
            made_with=rows(con, made_with)[0],
            has_revoked=store.exists(REVOKED),
            has_changes=store.exists(CHANGES_PAGE),
            truth=rows(con, truth),
        )

    @property
    def classes(self) -> list[str]:
        """The licence classes in the shards, the largest first."""
        sizes: dict[str, int] = {}
        for place in self.places:
            sizes[place["licence_class"]] = sizes.get(place["licence_class"], 0) + int(place["num_samples"])
        return sorted(sizes, key=lambda name: (-sizes[name], name))

    @property
    def collection(self) -> str:
        """Where the pictures come from."""
        imported = ", ".join(self.made_with["imported"])
        ours = "3D models with stated licences were collected, measured in motion and rendered by mv4d."
        theirs = f"Clips of published renders ({imported}) were taken over, with the licences of their models."
        if not imported:
            return ours
        return f"{ours} {theirs}" if self.made_with["blender"] else theirs

    @property
    def summary(self) -> str:
        """One sentence of figures."""
        total = self.total
        return (
            f"{count(total['samples'], 'multi-view clip')} ({count(total['videos'], 'single-view video')}) of "
            f"{count(total['animations'], 'animation')} of {count(total['assets'], 'animated 3D model')}, "
            "rendered as RGBA with exact cameras, licences and credits."
        )


def data_card(settings: CardSettings, facts: Facts) -> str:
    """`README.md`, with the header that the Hugging Face hub reads."""
    header = yaml.safe_dump(_header(settings, facts), sort_keys=False, allow_unicode=True, width=1000)
    sections = [
        f"---\n{header}---",
        f"# {escaped(settings.name)}\n\n{settings.description or facts.summary}",
        _figures(facts),
        _licence_section(facts),
        _loading(facts),
        *([_ground_truth(facts)] if facts.truth else []),
        _layout(facts),
        _fields(),
        _making(facts),
        _limits(settings),
    ]
    return "\n\n".join(sections) + "\n"


def _header(settings: CardSettings, facts: Facts) -> dict[str, Any]:
    header: dict[str, Any] = {"pretty_name": settings.name}
    ids = [licence.spdx.lower() for licence in facts.licences]
    if len(ids) == 1 and ids[0] in HUB_LICENCES:
        header["license"] = ids[0]
    else:
        header |= {
            "license": "other",
            "license_name": "per-asset",
            "license_link": "ATTRIBUTION.md",
            "license_details": ", ".join(licence.spdx for licence in facts.licences),
        }
    header["task_categories"] = ["text-to-video", "image-to-video", "text-to-3d", "image-to-3d"]
    header["size_categories"] = [size_category(int(facts.total["samples"]))]
    header["tags"] = ["webdataset", "croissant", "multi-view-video", "4d", "animation", "synthetic"]
    configs = [_config(licence_class, facts) for licence_class in facts.classes]
    if len(configs) > 1:
        everything = {
            split: [f"{place['licence_class']}/{split}/*.tar" for place in facts.places if place["split"] == split]
            for split in SPLITS
        }
        data_files = [{"split": split, "path": paths} for split, paths in everything.items() if paths]
        configs = [{"config_name": "all", "default": True, "data_files": data_files}, *configs]
    header["configs"] = configs
    return header


def _config(licence_class: str, facts: Facts) -> dict[str, Any]:
    splits = [place["split"] for place in facts.places if place["licence_class"] == licence_class]
    data_files = [{"split": split, "path": f"{licence_class}/{split}/*.tar"} for split in SPLITS if split in splits]
    return {"config_name": licence_class, "data_files": data_files}


def size_category(num_samples: int) -> str:
    """The hub's word for so many samples."""
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")
    for power, name in enumerate(names, start=3):
        if num_samples < 10**power:
            return name
    return "n>1B"


def _figures(facts: Facts) -> str:
    columns = [*facts.splits, facts.total] if len(facts.splits) > 1 else [facts.total]
    lines = [
        "## Figures",
        "",
        "| | " + " | ".join(row["split"] for row in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    labels = {
        "assets": "3D models",
        "families": "families of equal geometry",
        "animations": "animations",
        "samples": "samples (multi-view clips)",
        "videos": "single-view videos",
        "pictures": "pictures",
        "hours": "hours of single-view video",
        "num_bytes": "size",
    }
    for name, label in labels.items():
        lines.append(f"| {label} | " + " | ".join(_figure(name, row[name]) for row in columns) + " |")
    lines += ["", "| rig | views | frames | size | frames/s | samples |", "|---|---:|---:|---:|---:|---:|"]
    for shape in facts.shapes:
        size = f"{shape['width']} × {shape['height']}"
        rates = " – ".join(dict.fromkeys(f"{shape[name]:.3g}" for name in ("least_fps", "most_fps")))
        lines.append(
            f"| {shape['rig']} | {shape['num_views']} | {shape['num_frames']} | {size} | {rates} "
            f"| {shape['num_samples']:,} |"
        )
    return "\n".join(lines)


def _figure(name: str, value: float) -> str:
    if name == "num_bytes":
        return size_in_words(value)
    return f"{value:,.2f}" if name == "hours" else f"{value:,.0f}"


def size_in_words(num_bytes: float) -> str:
    """`1.2 GB`; a thousand bytes are a kB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000 or unit == "TB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:,.3g} {unit}"


def _licence_section(facts: Facts) -> str:
    lines = [
        "## Licences",
        "",
        "Every sample is under the licence of the model it shows. A shard holds one class of licences only, so a "
        "class is left out by leaving out its folder. Whom to credit: `ATTRIBUTION.md`, and `licence.attribution` "
        "in each record.",
        "",
        "| folder | licence | 3D models | samples | what it asks of you |",
        "|---|---|---:|---:|---|",
    ]
    for licence in sorted(facts.licences, key=lambda row: (facts.classes.index(row.licence_class), -row.num_assets)):
        name = escaped(licence.spdx) + (f" {link(text_url(licence))}" if text_url(licence) else "")
        lines.append(
            f"| `{licence.licence_class}/` | {name} | {licence.num_assets:,} | {licence.num_samples:,} "
            f"| {DUTIES.get(licence.licence_class, DUTIES['other'])} |"
        )
    return "\n".join(lines)


def _loading(facts: Facts) -> str:
    """Three ways to read it. The tests run them as they stand here, inside the published folder."""
    config = facts.classes[0]
    there = {place["split"] for place in facts.places if place["licence_class"] == config}
    split = next(split for split in SPLITS if split in there)
    return f'''## How to load it

Run from inside this folder, wherever it was downloaded to. In a loop, with `webdataset`:

```python
import glob, io, json

import numpy as np
import webdataset as wds
from PIL import Image

shards = sorted(glob.glob("{config}/{split}/*.tar"))
for sample in wds.WebDataset(shards, shardshuffle=False):
    record = json.loads(sample["json"])
    strip = np.asarray(Image.open(io.BytesIO(sample["v00.webp"])).convert("RGBA"))
    frames = strip.reshape(record["num_frames"], record["height"], record["width"], 4)
    c2w = np.array(record["cameras"]["c2w"])[0, 0]  # view 0: OpenCV camera to world
    print(record["key"], record["text"]["action"], frames.shape, c2w[:3, 3])
    break
```

With `datasets`; instead of the folder, the name of a repository on the hub will do:

```python
import os

from datasets import load_dataset

samples = load_dataset(os.getcwd(), "{config}", split="{split}", streaming=True)
sample = next(iter(samples))
print(sample["__key__"], sample["json"]["text"]["title"], sample["v00.webp"].size)
```

One sample chosen by SQL, reading nothing but its bytes:

```python
import io

import duckdb
from PIL import Image

shard, parts = duckdb.sql("""
    SELECT shard, parts FROM 'samples.parquet'
    WHERE split = '{split}' ORDER BY motion_mean DESC, key LIMIT 1
""").fetchall()[0]
part = next(part for part in parts if part["name"] == "v00.webp")
with open(shard, "rb") as file:
    file.seek(part["offset"])
    strip = Image.open(io.BytesIO(file.read(part["num_bytes"])))
print(shard, strip.size)
```

The strips carry straight alpha: put them on any background. Frames of a view are stacked top to bottom.'''


def _ground_truth(facts: Facts) -> str:
    """What each pass is, and how to read two tars side by side. The tests run it as it stands here."""
    lines = ["| pass | samples | size | what it is |", "|---|---:|---:|---|"]
    lines += [
        f"| `{row['name']}` | {row['num_samples']:,} | {size_in_words(row['num_bytes'])} "
        f"| {escaped(MEANINGS[row['name']])} |"
        for row in facts.truth
    ]
    table, name = "\n".join(lines), facts.truth[0]["name"]
    return f"""## Ground truth

For each tar `<class>/<split>/mv-000000.tar` there may be one more a pass,
`<class>/<split>/truth/mv-000000.<pass>.tar`, with the same keys in the same order. A key that lacks a pass has its
`json` there alone.

{table}

Maps are PNG strips like the pictures. `value = offset + step * stored`, with `offset` and `step` of the `json` beside
them; where all channels are 0 there is none. Read 16-bit colour with OpenCV (channels come as z, y, x), not with PIL.

```python
import glob, json

import cv2
import numpy as np
import webdataset as wds

for side in sorted(glob.glob("*/*/truth/mv-*.{name}.tar")):
    shard = side.replace("/truth/", "/").replace(".{name}.tar", ".tar")
    pairs = zip(wds.WebDataset(shard, shardshuffle=False), wds.WebDataset(side, shardshuffle=False), strict=True)
    for sample, truth in pairs:
        assert sample["__key__"] == truth["__key__"]
        how = json.loads(truth["json"])
        for part in how["parts"]:
            if part["name"].endswith(".png"):
                stored = cv2.imdecode(np.frombuffer(truth[part["name"]], np.uint8), cv2.IMREAD_UNCHANGED)
                values = how["offset"] + how["step"] * stored.astype(np.float64)
```"""


def _layout(facts: Facts) -> str:
    columns = "\n".join(f"| `{column.name}` | {column.kind} | {column.meaning} |" for column in COLUMNS)
    truth = (
        "<class>/<split>/truth/…            ground truth beside the shards, one tar a pass\n"
        "truth.parquet                      where every member of those lies\n"
        if facts.truth
        else ""
    )
    revoked = (
        "REVOKED.parquet                    ids that were taken down and must not be used\n"
        if facts.has_revoked
        else ""
    )
    if facts.has_changes:
        revoked += "CHANGES.md, changes/               which tars changed when that was done, with old and new sha256\n"
    return f"""## Files

```text
README.md                      this card
<class>/<split>/mv-000000.tar  WebDataset shards, pure in licence class and split
samples.parquet                where every member of every shard lies, with texts, scores and hashes
ATTRIBUTION.md                 author, source and licence of every model
attribution.parquet            the same as a table
LICENSES/README.md             where the licence texts stand
croissant.json                 all of this for machines
{truth}{revoked}```

A sample is `KEY.json`, the record, followed by `KEY.v00.webp`, `KEY.v01.webp`, …, one strip of frames a view. The same
clips are always packed into the same bytes. Splits are drawn by the family of the model's geometry, so that a
re-upload or a re-coloured copy never stands on both sides.

`samples.parquet`, one row a sample:

| column | type | meaning |
|---|---|---|
{columns}"""


def _fields() -> str:
    lines = ["## Fields of the record", "", "`KEY.json`:", "", "| field | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in field_table(SampleRecord)]
    return "\n".join(lines)


def _making(facts: Facts) -> str:
    made = facts.made_with
    days = sorted({made["checked"][0], made["checked"][-1]}) if made["checked"] else ["on days that are not stated"]
    presets, blender = ", ".join(f"`{preset}`" for preset in made["presets"]), ", ".join(made["blender"])
    sentences = []
    if made["blender"] or not made["imported"]:
        sentences.append(
            "3D models with stated licences were fetched. Every animation in them was measured on the deformed mesh, "
            f"and those that move were rendered with Blender {blender} from all cameras of the rig."
        )
    if made["imported"]:
        sentences.append(
            f"{count(made['num_imported'], 'sample')} of data sets that others have rendered "
            f"({', '.join(made['imported'])}) were taken over: their meshes were not measured, and "
            f"{made['num_opaque']} of them have no alpha (`backdrop` says before what the object stands)."
        )
    return f"""## How it was made

{" ".join(sentences)}
Licences and opt-outs were read {" to ".join(days)}. Which clips are kept was decided by the preset {presets}. Every
setting is in the records; with the ids it is enough to make the same files again.

Conventions: {CONVENTION}."""


def _limits(settings: CardSettings) -> str:
    uses, limits = "\n".join(f"- {use}" for use in USES), "\n".join(f"- {limit}" for limit in LIMITS)
    citation = f"\n\n## Citation\n\n```bibtex\n{settings.cite_as.strip()}\n```" if settings.cite_as else ""
    return f"""## Intended use

{uses}

Whoever trains on several licence classes takes on the duties of all of them. Models whose authors opted out of use by
generative AI are left out unless the packing settings say otherwise.

## Limits

{limits}
- {PERSONAL}{citation}"""
