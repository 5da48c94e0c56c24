import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Asset, Clip, Decision, Probe
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.plan import READS, PackSettings, PlannedShard, plan
from shards.views import connect_to
from tests.shards.toys import Toy, rows_of

CLASSES = ("cc0", "by", "by-sa")


def planned(toys: list[Toy], how: PackSettings, up_to_seq: int | None = None) -> list[PlannedShard]:
    """A plan needs no files, so it is made from rows alone."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Store(folder))
        rows = [row for toy in toys for row in rows_of(toy)]
        for record in READS:
            tables.write(record, "toys", [row for row in rows if type(row) is record], made_by="toy@1", made_from="")
        with connect_to(tables, READS) as con:
            return plan(con, how, frozenset(), up_to_seq)


toys = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.sampled_from("abcdef"), st.integers(1, 3)), min_size=1, max_size=12
).map(lambda rows: [Toy(seq=seq, licence_class=c, family=f, num_animations=n) for seq, (c, f, n) in enumerate(rows)])


@settings(max_examples=8, deadline=None)
@given(toys, st.integers(0, 1000))
def test_a_family_is_on_one_side_only_whatever_its_licences(made: list[Toy], seed: int) -> None:
    shards = planned(made, PackSettings(shard_mb=0.005, split_seed=seed, val_share=0.3, test_share=0.3))
    sides: dict[str, set[str]] = {}
    for shard in shards:
        for clip in shard.clips:
            sides.setdefault(clip.family_id, set()).add(shard.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert set(sides) == {toy.family for toy in made}


@settings(max_examples=8, deadline=None)
@given(toys, st.integers(0, 12))
def test_closed_shards_of_a_prefix_are_those_of_the_whole(made: list[Toy], up_to_seq: int) -> None:
    how = PackSettings(shard_mb=0.005, val_share=0.3)
    whole = {shard.path: shard.clips for shard in planned(made, how)}
    for shard in planned(made, how, up_to_seq):
        if shard.closed:
            assert whole[shard.path] == shard.clips
        else:
            assert whole[shard.path][: len(shard.clips)] == shard.clips


def test_splits_come_close_to_their_shares() -> None:
    how = PackSettings(val_share=0.05, test_share=0.1)
    drawn = [how.split_of(f"family {number}") for number in range(20_000)]
    assert drawn.count("val") / len(drawn) == pytest.approx(0.05, abs=0.01)
    assert drawn.count("test") / len(drawn) == pytest.approx(0.1, abs=0.01)


def test_another_seed_deals_anew_and_a_larger_validation_share_keeps_what_was_in_it() -> None:
    families = [f"family {number}" for number in range(2000)]
    narrow, wide, other = (
        {family for family in families if how.split_of(family) == "val"}
        for how in (PackSettings(), PackSettings(val_share=0.1), PackSettings(split_seed=1))
    )
    assert narrow < wide
    assert narrow != other


def test_clips_stand_in_the_order_of_input_action_and_window() -> None:
    (shard,) = planned([Toy(seq=3), Toy(seq=1, num_animations=3), Toy(seq=2, num_animations=1)], PackSettings())
    keys = [clip.key.split("_")[:2] for clip in shard.clips]
    ids = {toy.seq: toy.asset_id[:12] for toy in (Toy(seq=1), Toy(seq=2), Toy(seq=3))}
    assert keys == [
        [ids[1], "000"], [ids[1], "001"], [ids[1], "002"], [ids[2], "000"], [ids[3], "000"], [ids[3], "001"]
    ]  # fmt: skip


def test_two_clips_with_one_key_are_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(Store(folder))
        rows = rows_of(Toy(seq=0, num_animations=1))
        twin = next(row for row in rows if isinstance(row, Clip))
        rows.append(Clip(**{**vars(twin), "clip_id": twin.clip_id[:8] + "00000000"}))
        rows.append(Decision(clip_id=twin.clip_id[:8] + "00000000", preset="", keep=True, reason="", reasons=()))
        for record in READS:
            tables.write(record, "toys", [row for row in rows if type(row) is record], made_by="toy@1", made_from="")
        with connect_to(tables, READS) as con, pytest.raises(RuntimeError, match="two clips have one key"):
            plan(con, PackSettings(), frozenset())


def test_assets_and_probes_are_read() -> None:
    assert {Asset, Probe, Clip, Decision} <= set(READS)
