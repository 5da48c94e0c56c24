"""For those who read tars in a row with `webdataset`: the same examples, in the tars' own order."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import IterableDataset

from pipeline.media import strip_name
from pipeline.revoked import DenyList
from pipeline.storage import Store
from training.data.clips import ClipRecord, ClipSettings, Example, logger, make_example
from training.data.index import BrokenSample


def to_example(settings: ClipSettings) -> Callable[[dict[str, Any]], Example]:
    """A function for `webdataset.WebDataset(…).map`: a sample of undecoded bytes to an example."""

    def convert(sample: dict[str, Any]) -> Example:
        record = ClipRecord.parse(sample["json"])
        names = [strip_name(view) for view in settings.views(record, variant=0)]
        missing = [name for name in names if name not in sample]
        if missing:
            raise BrokenSample(f"{record.key} has no {', '.join(missing)}")
        return make_example(record, 0, [sample[name] for name in names], settings)

    return convert


class TarStream(IterableDataset[Example]):
    """Examples of some tars, one after the other; neither order nor counts are equal on all ranks.

    `training.data.clips` is the exact reader. This one is for a quick look, and for remote tars without an index.
    """

    def __init__(
        self,
        urls: list[str],
        settings: ClipSettings,
        *,
        shuffle: int = 0,
        seed: int = 0,
        shards: str | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            urls: Of tars; brace expansion as in `webdataset`.
            settings: What of a clip becomes an example.
            shuffle: Samples held back to be shuffled.
            seed: Of the shuffling.
            shards: Folder or URL of the shards, if it holds a list of what was taken down: nothing of it is shown.
        """
        super().__init__()
        self.urls, self.settings, self.shuffle, self.seed = urls, settings, shuffle, seed
        self.denied = DenyList(Store(shards)) if shards is not None else None

    def __iter__(self) -> Iterator[Example]:
        import webdataset

        tars = webdataset.WebDataset(
            self.urls, shardshuffle=len(self.urls) if self.shuffle else False, seed=self.seed, empty_check=False
        )
        samples = tars.shuffle(self.shuffle, seed=self.seed) if self.shuffle else tars
        convert = to_example(self.settings)
        for sample in samples:
            try:
                if self.denied and _is_taken_down(sample, self.denied):
                    continue
                yield convert(sample)
            except BrokenSample as error:
                logger.warning("passed over the broken sample %s: %s", sample["__key__"], error)


def _is_taken_down(sample: dict[str, Any], denied: DenyList) -> bool:
    try:
        record = json.loads(sample["json"])
        return denied.has(record["asset_id"], record["clip_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenSample(f"not the record of a sample: {error!r}") from error
