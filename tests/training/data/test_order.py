from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.order import BatchesOfRank, Draw, Stream


def global_batches(stream: Stream, *, num_ranks: int, size: int, num: int, start: int = 0) -> list[list[Draw]]:
    """What all ranks together train on, a global batch of `size` after the other."""
    of_rank = []
    for rank in range(num_ranks):
        batches = BatchesOfRank(
            stream, batch_size=size // num_ranks, num_batches=num, start=start, rank=rank, num_ranks=num_ranks
        )
        of_rank.append(list(batches))
    return [[draw for rank in of_rank for draw in rank[step]] for step in range(num)]


@given(num_samples=st.integers(1, 40), seed=st.integers(0, 5), window=st.integers(0, 3))
def test_each_pass_shows_every_sample_once(num_samples: int, seed: int, window: int) -> None:
    starts = tuple(range(0, num_samples, 7))
    stream = Stream(num_samples=num_samples, seed=seed, shard_starts=starts, window_shards=window)
    for passes in range(3):
        seen = [stream[passes * num_samples + place].index for place in range(num_samples)]
        assert sorted(seen) == list(range(num_samples))


def test_passes_and_seeds_differ() -> None:
    stream, other = Stream(num_samples=50), Stream(num_samples=50, seed=1)
    assert not np.array_equal(stream.permutation(0), stream.permutation(1))
    assert not np.array_equal(stream.permutation(0), other.permutation(0))


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_global_batch_is_the_same_for_any_number_of_ranks(num_ranks: int) -> None:
    stream = Stream(num_samples=13, seed=3)
    alone = global_batches(stream, num_ranks=1, size=8, num=9)
    assert global_batches(stream, num_ranks=num_ranks, size=8, num=9) == alone


def test_accumulated_batches_are_the_same_samples() -> None:
    stream = Stream(num_samples=13, seed=3)
    whole = global_batches(stream, num_ranks=2, size=8, num=5)
    halves = global_batches(stream, num_ranks=2, size=4, num=10)
    assert [Counter(first + second) for first, second in zip(halves[::2], halves[1::2], strict=True)] == [
        Counter(batch) for batch in whole
    ]


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_another_world_size_goes_on_where_the_first_one_stopped(num_ranks: int) -> None:
    stream = Stream(num_samples=13, seed=3)
    unbroken = global_batches(stream, num_ranks=2, size=8, num=9)
    assert global_batches(stream, num_ranks=num_ranks, size=8, num=5, start=4 * 8) == unbroken[4:]


def test_windows_read_few_shards_at_a_time() -> None:
    starts = tuple(range(0, 100, 10))
    stream = Stream(num_samples=100, shard_starts=starts, window_shards=2)
    order = stream.permutation(0)
    for first in range(0, 100, 20):
        assert len({int(index) // 10 for index in order[first : first + 20]}) == 2
    assert not np.array_equal(np.sort(order[:20]), order[:20])


def test_unshuffled_is_the_order_of_the_shards() -> None:
    stream = Stream(num_samples=4, shuffle=False)
    assert [stream[place].index for place in range(6)] == [0, 1, 2, 3, 0, 1]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Stream(num_samples=0)
    with pytest.raises(ValueError, match="rank"):
        BatchesOfRank(Stream(num_samples=1), batch_size=1, num_batches=1, rank=2, num_ranks=2)
