"""For those who read tars in a row with `webdataset`: the same examples, in the tars' own order."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from training.data.clips import ClipRecord, ClipSettings, Example, choose_views, logger, make_example
from training.data.index import BrokenSample


def to_example(settings: ClipSettings) -> Callable[[dict[str, Any]], Example]:
    """A function for `webdataset.WebDataset(…).map`: a sample of undecoded bytes to an example."""

    def convert(sample: dict[str, Any]) -> Example:
        record = ClipRecord.parse(sample["json"])
        rng = np.random.default_rng([settings.seed, zlib.crc32(record.key.encode())])
        views = choose_views(record.num_views, settings.num_views, rng)
        names = [f"v{view:02d}.webp" for view in views]
        missing = [name for name in names if name not in sample]
        if missing:
            raise BrokenSample(f"{record.key} has no {', '.join(missing)}")
        return make_example(record, views, [sample[name] for name in names], settings, rng)

    return convert


class TarStream(IterableDataset[Example]):
    """Examples of some tars, one after the other; neither order nor counts are equal on all ranks.

    `training.data.clips` is the exact reader. This one is for a quick look, and for remote tars without an index.
    """

    def __init__(self, urls: list[str], settings: ClipSettings, *, shuffle: int = 0, seed: int = 0) -> None:
        """Nothing is opened yet.

        Args:
            urls: Of tars; brace expansion as in `webdataset`.
            settings: What of a clip becomes an example.
            shuffle: Samples held back to be shuffled.
            seed: Of the shuffling.
        """
        super().__init__()
        self.urls, self.settings, self.shuffle, self.seed = urls, settings, shuffle, seed

    def __iter__(self) -> Iterator[Example]:
        import webdataset

        tars = webdataset.WebDataset(
            self.urls, shardshuffle=len(self.urls) if self.shuffle else False, seed=self.seed, empty_check=False
        )
        samples = tars.shuffle(self.shuffle, seed=self.seed) if self.shuffle else tars
        convert = to_example(self.settings)
        for sample in samples:
            try:
                yield convert(sample)
            except BrokenSample as error:
                logger.warning("passed over the broken sample %s: %s", sample["__key__"], error)
