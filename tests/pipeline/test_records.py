import dataclasses

import pyarrow as pa
import pytest

from pipeline.reasons import REASONS, explain
from pipeline.records import (
    RECORDS,
    Clip,
    Part,
    Record,
    SourceItem,
    arrow_schema,
    arrow_type,
    content_id,
    from_dict,
    to_table,
)
from pipeline.schema_docs import tables_page
from tests.conftest import REPOSITORY
from tests.pipeline.toys import item


def test_the_schemas_are_the_documented_ones() -> None:
    """After a changed column raise SCHEMA_VERSION and run `python -m pipeline.schema_docs > docs/tables.md`."""
    assert (REPOSITORY / "docs" / "tables.md").read_text() == tables_page()


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_record_has_a_table_a_key_and_a_schema(record: type[Record]) -> None:
    schema = arrow_schema(record)
    assert set(record.key) <= set(schema.names)
    assert schema.names == [field.name for field in dataclasses.fields(record)]
    assert not {field.type for field in schema} & {pa.null()}
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_tables_have_names_of_their_own() -> None:
    assert len({record.table for record in RECORDS}) == len(RECORDS)


def test_a_row_survives_arrow_with_nested_parts_and_nulls() -> None:
    clip = Clip(
        clip_id="c", animation_id="a", asset_id="x", rig="front", quality="preview", num_views=1, num_frames=2, width=8,
        height=8, fps=8.0, seed=1, azimuth_deg=0.0, elevation_deg=0.0, view_names=("view_00",), c2w=tuple([0.5] * 16),
        num_camera_frames=1, intrinsics=(1.0, 1.0, 4.0, 4.0), world_scale=1.0, world_centre=(0.0, 0.0, 1.0),
        folder="clips/c", parts=(Part(name="v00.webp", num_bytes=3, sha256="ab"),), texture_limit_px=0,
        blender_version="4", device="CPU", settings="{}", backdrop="",
    )  # fmt: skip
    for row in (clip, item(3)):
        (back,) = to_table([row], type(row)).to_pylist()
        assert from_dict(type(row), back) == row


def test_a_missing_value_in_a_column_that_must_have_one_is_refused() -> None:
    with pytest.raises(ValueError, match="title must not be None"):
        to_table([dataclasses.replace(item(1), title=None)], SourceItem)  # type: ignore[arg-type]


def test_a_type_without_an_arrow_type_is_refused() -> None:
    with pytest.raises(TypeError, match="no Arrow type"):
        arrow_type(dict[str, int])


def test_ids_depend_on_every_part_and_on_nothing_else() -> None:
    assert content_id("a", 1, ("b",)) == content_id("a", 1, ["b"])
    assert len({content_id("a", 1), content_id("a", 2), content_id("a1"), content_id("a", "1")}) == 4


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_says_what_to_do(reason: str) -> None:
    meaning, advice = REASONS[reason]
    assert meaning
    assert advice
    assert advice in explain(reason)
