import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.media import encode_strip
from pipeline.records import Sample
from pipeline.tables import Tables
from shards.lint import LintSettings, lint
from tests.shards.toys import shape_frames

SHARD = "shards/by/train/mv-000000.tar"

Members = list[tuple[tarfile.TarInfo, bytes]]


def kinds(tables: Tables) -> set[str]:
    return {finding.kind for finding in lint(tables).findings}


def rewrite(tables: Tables, change: Callable[[Members], Members], path: str = SHARD) -> None:
    """Unpack a shard, change its members, pack it again; the index stays as it was."""
    with tarfile.open(fileobj=io.BytesIO(tables.store.read_bytes(path))) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in change(members):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    tables.store.write_bytes(path, buffer.getvalue())


def edit_record(edit: Callable[[dict[str, Any]], None], sample: int = 0) -> Callable[[Members], Members]:
    """Change a sample's KEY.json."""

    def change(members: Members) -> Members:
        info, content = members[3 * sample]
        record = json.loads(content)
        edit(record)
        return [*members[: 3 * sample], (info, json.dumps(record).encode()), *members[3 * sample + 1 :]]

    return change


def test_a_packed_data_root_has_no_findings(packed: Tables) -> None:
    report = lint(packed)
    assert report.findings == []
    assert report.num_samples == len(packed.rows(Sample))
    assert report.num_shards == len(packed.store.list_files("shards", ".tar"))


def test_progress_ends_at_the_last_byte(packed: Tables) -> None:
    steps: list[tuple[int, int]] = []
    lint(packed, LintSettings(workers=2), on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize("where", range(0, 20_000, 2_117))
def test_a_flipped_bit_is_found_wherever_it_is(packed: Tables, where: int) -> None:
    content = bytearray(packed.store.read_bytes(SHARD))
    content[where % len(content)] ^= 4
    packed.store.write_bytes(SHARD, bytes(content))
    findings = lint(packed, LintSettings(workers=1)).findings
    assert findings
    assert {finding.shard for finding in findings} == {SHARD}


def test_a_flipped_bit_in_a_picture_names_sample_and_part(packed: Tables) -> None:
    sample = next(row for row in packed.rows(Sample) if row.shard == SHARD)
    content = bytearray(packed.store.read_bytes(SHARD))
    content[sample.parts[1].offset + 30] ^= 1
    packed.store.write_bytes(SHARD, bytes(content))
    found = [(finding.key, finding.kind) for finding in lint(packed).findings]
    assert (sample.sample_key, "bytes") in found
    assert any("v00.webp was changed" in finding.detail for finding in lint(packed).findings)


@pytest.mark.parametrize("keep", [0, 300, 700, 3000, 5121, -10240, -1])
def test_a_truncated_tar_is_found(packed: Tables, keep: int) -> None:
    packed.store.write_bytes(SHARD, packed.store.read_bytes(SHARD)[:keep])
    assert kinds(packed) & {"unreadable", "bytes", "no_file"}


def test_a_doubled_key_is_found_in_one_shard_and_over_two(packed: Tables) -> None:
    rewrite(packed, lambda members: members + members[:3])
    assert "key" in kinds(packed)


def test_a_key_in_two_shards_is_found(packed: Tables) -> None:
    packed.store.write_bytes("shards/by/train/mv-000099.tar", packed.store.read_bytes(SHARD))
    found = lint(packed).findings
    assert {"key", "no_index"} <= {finding.kind for finding in found}


def test_files_without_index_and_index_without_files_are_found(packed: Tables) -> None:
    packed.store.remove(SHARD)
    assert kinds(packed) == {"no_file"}
    for table in ("samples", "shards"):
        for path in packed.store.list_files(f"tables/{table}"):
            packed.store.remove(path)
    assert kinds(packed) == {"no_index"}


def test_a_sample_that_the_index_lacks_and_one_it_has_too_many(packed: Tables) -> None:
    rewrite(packed, lambda members: members[3:])
    assert {"no_file", "bytes"} <= kinds(packed)


def test_dots_in_keys_are_found(packed: Tables) -> None:
    def change(members: Members) -> Members:
        for info, _ in members[:3]:
            info.name = info.name.replace("_000_", ".000_", 1)
        return members

    rewrite(packed, change)
    assert {"no_index", "no_file"} <= kinds(packed)


def test_members_with_a_date_an_owner_or_a_link_are_found(packed: Tables) -> None:
    def change(members: Members) -> Members:
        members[0][0].mtime = 1_700_000_000
        return members

    rewrite(packed, change)
    assert "member" in kinds(packed)


def rolled(record: dict[str, Any]) -> None:
    record["cameras"]["c2w"][0][0][0][0] += 0.01


def turned_away(record: dict[str, Any]) -> None:
    for row in record["cameras"]["c2w"][1][0][:3]:
        row[1], row[2] = -row[1], -row[2]


def aside(record: dict[str, Any]) -> None:
    record["cameras"]["c2w"][0][0][0][3] += 0.5


def off_centre(record: dict[str, Any]) -> None:
    record["cameras"]["intrinsics"][2] = -3.0


def too_few(record: dict[str, Any]) -> None:
    record["cameras"]["c2w"].pop()


def mirrored(record: dict[str, Any]) -> None:
    for row in record["cameras"]["c2w"][0][0][:3]:
        row[0] = -row[0]


@pytest.mark.parametrize("edit", [rolled, turned_away, aside, off_centre, too_few, mirrored])
def test_cameras_that_cannot_be_are_found(packed: Tables, edit: Callable[[dict[str, Any]], None]) -> None:
    rewrite(packed, edit_record(edit))
    assert "camera" in kinds(packed)


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [("num_frames", 3, "picture"), ("height", 12, "picture"), ("width", 25, "picture"), ("num_views", 3, "record"),
     ("split", "val", "purity"), ("key", "other", "record"), ("format", "mv4d-sample/0", "record")],
)  # fmt: skip
def test_records_that_do_not_fit_are_found(packed: Tables, field: str, value: Any, kind: str) -> None:
    rewrite(packed, edit_record(lambda record: record.update({field: value})))
    assert kind in kinds(packed)


def test_a_licence_of_another_class_is_found(packed: Tables) -> None:
    rewrite(packed, edit_record(lambda record: record["licence"].update(licence_class="by-nc")))
    assert "purity" in kinds(packed)


def test_a_family_in_two_splits_is_found(packed: Tables) -> None:
    rewrite(packed, edit_record(lambda record: record.update(split="test"), sample=1))
    assert "leak" in kinds(packed)


def test_a_strip_of_another_size_or_none_at_all_is_found(packed: Tables) -> None:
    def change(members: Members) -> Members:
        other = encode_strip(np.ascontiguousarray(shape_frames(1, num_frames=5)))
        return [members[0], (members[1][0], other), (members[2][0], b"no picture"), *members[3:]]

    rewrite(packed, change)
    details = [finding.detail for finding in lint(packed).findings if finding.kind == "picture"]
    assert len(details) == 2
    assert not [f for f in lint(packed, LintSettings(decode=False)).findings if f.kind == "picture"]


def test_json_that_is_none_is_found(packed: Tables) -> None:
    rewrite(packed, lambda members: [(members[0][0], b"{"), *members[1:]])
    assert "record" in kinds(packed)


def test_a_tar_in_the_wrong_place_is_found(packed: Tables) -> None:
    packed.store.write_bytes("shards/by/extra.tar", packed.store.read_bytes(SHARD))
    assert "purity" in kinds(packed)
