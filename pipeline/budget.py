"""How many bytes of assets a data root may hold: what brings more begins nothing new once they are there."""

from collections.abc import Iterable

from pipeline.records import Asset, Record
from pipeline.tables import Tables


class ByteBudget:
    """Counts stored assets against a limit, those of earlier runs included; equal bytes once."""

    def __init__(self, limit: int, tables: Tables) -> None:
        """Count what is there.

        Args:
            limit: Bytes; 0 for none.
            tables: Of the data root.
        """
        self._limit = limit
        self.num_bytes = 0
        """Stored so far."""
        self._counted: set[str] = set()
        if limit:
            with tables.connect([Asset]) as con:
                found = con.execute("SELECT asset_id, any_value(num_bytes) FROM assets GROUP BY asset_id").fetchall()
            self._counted = {asset_id for asset_id, _ in found}
            self.num_bytes = sum(num_bytes for _, num_bytes in found)

    def count(self, rows: Iterable[Record]) -> None:
        """Count the assets among the rows that a worker has committed."""
        if self._limit:
            for row in rows:
                if isinstance(row, Asset) and row.asset_id not in self._counted:
                    self._counted.add(row.asset_id)
                    self.num_bytes += row.num_bytes

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may begin."""
        return 0 < self._limit <= self.num_bytes

    def admits(self, num_running: int) -> bool:
        """Whether one more input may begin beside those under way, taken to be of the size that assets have had.

        So few are under way at the beginning, when sizes are not known, and few towards the end: the limit is passed by
        about one asset.
        """
        if not self._limit:
            return True
        mean = self.num_bytes / max(1, len(self._counted))
        return num_running < 4 * (1 + len(self._counted)) and self.num_bytes + num_running * mean < self._limit
