import json
import math

import numpy as np
import pytest

from pipeline.records import Animation, Asset, Clip, ImageMotion
from shards.captions import Words
from shards.fields import field_table
from shards.sample import SampleRecord, sample_key, sample_record
from tests.shards.toys import Toy, rows_of


def record(**changes: float) -> SampleRecord:
    rows = rows_of(Toy(seq=1, num_animations=1))
    (asset,) = (row for row in rows if isinstance(row, Asset))
    (animation,) = (row for row in rows if isinstance(row, Animation))
    (clip,) = (row for row in rows if isinstance(row, Clip))
    (score,) = (row for row in rows if isinstance(row, ImageMotion))
    animation = Animation(**{**vars(animation), **changes})
    return sample_record(
        clip, animation, asset, score, family_id="f", split="train", caption=Words("Toy, Walk", "metadata")
    )


def test_the_record_is_the_same_bytes_each_time_and_plain_ascii() -> None:
    assert record().to_json() == record().to_json()
    assert record().to_json().isascii()


def test_cameras_come_back_from_json_as_they_were() -> None:
    clip = next(row for row in rows_of(Toy(seq=1, num_animations=1)) if isinstance(row, Clip))
    c2w = np.array(json.loads(record().to_json())["cameras"]["c2w"])
    assert c2w.shape == (clip.num_views, 1, 4, 4)
    assert c2w.ravel().tolist() == list(clip.c2w)


def test_a_measure_that_is_not_finite_becomes_null() -> None:
    assert json.loads(record(motion_p95=math.nan, travel=math.inf).to_json())["motion"]["motion_p95"] is None


def test_it_names_no_folder_of_the_machine() -> None:
    asset = next(row for row in rows_of(Toy(seq=1)) if isinstance(row, Asset))
    assert asset.source == "toys"
    assert '"toys"' not in record().to_json().decode()


@pytest.mark.parametrize("asset_id", ["ab.cd", "ab/cd", "ab cd", "äb"])
def test_a_key_has_nothing_in_it_that_webdataset_would_cut_at(asset_id: str) -> None:
    with pytest.raises(ValueError, match="no sample key"):
        sample_key(asset_id, 0, 0, "0123456789")


def test_every_field_of_the_record_says_what_it_means() -> None:
    table = list(field_table(SampleRecord))
    assert len(table) > 50
    assert [name for name, _, meaning in table if not meaning] == []
    assert ("cameras.intrinsics", "list of number") in [row[:2] for row in table]
    assert ("parts[].sha256", "string") in [row[:2] for row in table]
    assert ("motion.travel", "number or null") in [row[:2] for row in table]
