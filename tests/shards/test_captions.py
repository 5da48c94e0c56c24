import pytest

from pipeline.records import Caption
from pipeline.tables import Tables
from shards.captions import Words, best_captions, metadata_caption
from shards.views import connect_to


@pytest.mark.parametrize(
    ("title", "action", "tags", "expected"),
    [
        ("Red_Fox", "Armature|Walk.001", (), "Red Fox, Walk"),
        ("Fox", "", (), "Fox"),
        ("", "mixamo.com|Layer0", (), "Layer"),
        ("Red Fox", "Walk", ("fox", "animal", "Low-Poly", "3d", "NoAI"), "Red Fox, Walk, animal"),
        ("Fox", "", tuple("abcdefgh"), "Fox, a, b, c, d, e"),
        ("2a7f866be31e43b89074f304a31ff82d", "", ("walking-robot",), "walking robot"),
        ("", "", (), ""),
    ],
)
def test_names_make_a_caption(title: str, action: str, tags: tuple[str, ...], expected: str) -> None:
    assert metadata_caption(title, action, tags) == Words(expected, "metadata")


def caption(kind: str, source: str, text: str, clip_id: str = "c1") -> Caption:
    return Caption(clip_id=clip_id, kind=kind, source=source, text=text, about="")


def test_a_list_goes_before_a_model_and_that_before_the_data_set(tables: Tables) -> None:
    rows = [
        caption("data_set", "mv-video", "third"),
        caption("model", "smol", "second"),
        caption("file", "b", "late in the alphabet"),
        caption("file", "a", "first"),
        caption("file", "A empty", "  "),
        caption("model", "smol", "of a model", "c2"),
        caption("data_set", "mv-video", "of a data set", "c2"),
        caption("unheard of", "x", "nobody knows", "c3"),
    ]
    tables.write(Caption, "some", rows, made_by="test", made_from="")
    with connect_to(tables, [Caption]) as con:
        assert best_captions(con, ["c1", "c2", "c3", "c4"]) == {
            "c1": Words("first", "file:a"),
            "c2": Words("of a model", "model:smol"),
        }
