"""Credit where it is due: every asset in the shards, its author and its licence."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from shards.views import rows

CHANGES = "rendered to multi-view video; geometry, materials and motion as the author made them"

DUTIES: dict[str, str] = {
    "cc0": "none; credit is given anyway",
    "permissive": "keep the licence's notice",
    "by": "give credit, link the licence, say what was changed",
    "by-sa": "as `by`, and what you adapt stays under the same licence",
    "by-nc": "as `by`, and no commercial use",
    "by-nc-sa": "as `by-nc` and `by-sa`",
    "other": "read the licence of each asset",
}
"""licence class: what it asks of you, in short. The licence's own text decides."""

_TEXTS = (
    "asset_id", "title", "author", "source_url", "spdx", "licence_class", "licence_url", "licence_text", "evidence",
    "evidence_sha256", "checked_on", "noai_checked_on", "source_status", "status_checked_on", "attribution",
)  # fmt: skip
_QUERY = f"""
SELECT {", ".join(_TEXTS)}, noai, ? AS changes, count(*)::BIGINT AS num_samples
FROM (SELECT asset_id FROM samples) JOIN first_assets USING (asset_id)
GROUP BY ALL
ORDER BY spdx, title, asset_id
"""
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in (*_TEXTS, "changes")] + [("noai", pa.bool_()), ("num_samples", pa.int64())]
)


@dataclass(frozen=True)
class LicenceCount:
    """A licence and how much of the data set is under it."""

    spdx: str
    licence_class: str
    licence_url: str
    num_assets: int
    num_samples: int


def credit_rows(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """One row an asset in the shards, sorted by licence and title."""
    return rows(con, _QUERY, [CHANGES])


def licences(entries: Sequence[dict[str, Any]]) -> list[LicenceCount]:
    """The licences among the assets, the most frequent first."""
    found = []
    for spdx, group in groupby(entries, key=lambda entry: str(entry["spdx"])):
        assets = list(group)
        url = next((entry["licence_url"] for entry in assets if entry["licence_url"]), "")
        samples = sum(entry["num_samples"] for entry in assets)
        found.append(LicenceCount(spdx, assets[0]["licence_class"], url, len(assets), samples))
    return sorted(found, key=lambda licence: (-licence.num_assets, licence.spdx))


def attribution_parquet(entries: Sequence[dict[str, Any]]) -> bytes:
    """`attribution.parquet`: one row an asset."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(entries), schema=_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def attribution_markdown(entries: Sequence[dict[str, Any]], where: str = "in this data set") -> str:
    """`ATTRIBUTION.md`: a line of credit for each asset, by licence."""
    lines = [
        "# Attribution",
        "",
        f"{count(len(entries), 'asset')} {where}, each with its author, its source and its licence. "
        f"Changes made to all of them: {CHANGES}. The same as a table: `attribution.parquet`.",
    ]
    for spdx, group in groupby(entries, key=lambda entry: str(entry["spdx"])):
        assets = list(group)
        url = next((entry["licence_url"] for entry in assets if is_link(entry["licence_url"])), "")
        lines += ["", f"## {escaped(spdx)} ({count(len(assets), 'asset')})", ""]
        lines += [f"Licence text: <{url}>", ""] if url else []
        lines += [f"- {_with_links(entry['attribution'])} `{entry['asset_id'][:12]}`" for entry in assets]
    return "\n".join(lines) + "\n"


def licence_index(entries: Sequence[dict[str, Any]]) -> str:
    """`LICENSES/README.md`: where the text of each licence stands."""
    lines = [
        "# Licences",
        "",
        "Each shard holds assets of one class only; delete a class's folder to be rid of it.",
        "",
        "| licence | class | text | assets | what it asks of you |",
        "|---|---|---|---:|---|",
    ]
    for licence in licences(entries):
        duty = DUTIES.get(licence.licence_class, DUTIES["other"])
        lines.append(
            f"| {escaped(licence.spdx)} | {licence.licence_class} | {link(text_url(licence))} "
            f"| {licence.num_assets:,} | {duty} |"
        )
    return "\n".join(lines) + "\n"


def text_url(licence: LicenceCount) -> str:
    """Where the licence can be read: as the source says, else at spdx.org; empty for an expression of several."""
    if is_link(licence.licence_url):
        return licence.licence_url
    single = re.fullmatch(r"[A-Za-z0-9.+-]+", licence.spdx) and not licence.spdx.startswith("LicenseRef-")
    return f"https://spdx.org/licenses/{licence.spdx}.html" if single else ""


def escaped(text: str) -> str:
    """Text of strangers, made harmless in Markdown: one line, no markup."""
    single_line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", single_line)


def _with_links(text: str) -> str:
    """As `escaped`, with web addresses as links: the escapes would break them."""
    pieces = re.split(r"(https?://[^\s<>|;,()]+)", text)
    return "".join(link(piece) if number % 2 else _escaped_piece(piece) for number, piece in enumerate(pieces))


def _escaped_piece(text: str) -> str:
    inner = escaped(text)
    return f"{' ' if text[:1].isspace() else ''}{inner}{' ' if inner and text[-1:].isspace() else ''}"


def is_link(url: str) -> bool:
    """True for a web address that can stand between angle brackets."""
    return bool(re.fullmatch(r"https?://[^\s<>|]+", url))


def link(url: str) -> str:
    """The address as a Markdown link, or nothing."""
    return f"<{url}>" if is_link(url) else ""


def count(number: int, noun: str) -> str:
    """`1 asset`, `1,234 assets`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
