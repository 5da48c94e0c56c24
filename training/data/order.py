"""The order of training: one endless stream of samples, the same for any number of ranks, workers and restarts.

Place p of the stream shows sample `permutation(p // n)[p % n]` of n samples: every sample comes once in each pass, no
tail is dropped, and where training stands is one number. Rank r of w takes its share of each run of w batches, so all
ranks have equally many batches, and a global batch holds the same samples whatever its division.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True)
class Draw:
    """One place of the stream; what is drawn at random for the example depends on nothing else."""

    index: int
    """Of the sample."""
    place: int
    """In the stream."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The endless order of a data set's samples."""

    num_samples: int
    seed: int = 0
    shuffle: bool = True
    shard_starts: tuple[int, ...] = ()
    """Place of each shard's first sample, if shards are to be read one window after the other."""
    window_shards: int = 0
    """Shards are taken in random order, and samples shuffled within so many of them; 0 shuffles all samples at once.
    A window spares remote stores and disks random reads over the whole data set."""

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.window_shards < 0:
            raise ValueError(f"need at least one sample, and window_shards >= 0, got {self}")

    def __getitem__(self, place: int) -> Draw:
        passes, rest = divmod(place, self.num_samples)
        return Draw(index=int(self.permutation(passes)[rest]), place=place)

    def permutation(self, passes: int) -> np.ndarray:
        """The order of a pass over the data. Shape (sample,)."""
        return _permutation(self, passes)


@lru_cache(maxsize=4)
def _permutation(stream: Stream, passes: int) -> np.ndarray:
    if not stream.shuffle:
        return np.arange(stream.num_samples)
    rng = np.random.default_rng([stream.seed, passes])
    if not stream.window_shards or len(stream.shard_starts) <= 1:
        return rng.permutation(stream.num_samples)
    bounds = [*stream.shard_starts, stream.num_samples]
    shards = [np.arange(bounds[place], bounds[place + 1]) for place in rng.permutation(len(bounds) - 1)]
    windows = [shards[start : start + stream.window_shards] for start in range(0, len(shards), stream.window_shards)]
    return np.concatenate([rng.permutation(np.concatenate(window)) for window in windows])


class BatchesOfRank(Sampler[list[Draw]]):
    """The batches of one rank, from a place of the stream on."""

    def __init__(
        self, stream: Stream, *, batch_size: int, num_batches: int, start: int = 0, rank: int = 0, num_ranks: int = 1
    ) -> None:
        """The batches from `start` on.

        Args:
            stream: Of all ranks.
            batch_size: Samples of this rank's batches.
            num_batches: How many batches the rank is given.
            start: Place of the stream at which the first batch of rank 0 begins.
            rank: This rank.
            num_ranks: How many there are.
        """
        super().__init__()
        if batch_size < 1 or not 0 <= rank < num_ranks or start < 0:
            raise ValueError(f"need batch_size >= 1, 0 <= rank < num_ranks, start >= 0: {batch_size}, {rank}, {start}")
        self.stream, self.batch_size, self.num_batches = stream, batch_size, num_batches
        self.start, self.rank, self.num_ranks = start, rank, num_ranks

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        stride = self.batch_size * self.num_ranks
        for batch in range(self.num_batches):
            first = self.start + batch * stride + self.rank * self.batch_size
            yield [self.stream[place] for place in range(first, first + self.batch_size)]
