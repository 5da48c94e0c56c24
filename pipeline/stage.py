"""A stage: settings in its fields, rows in, rows out."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pipeline.records import Record, Rejected, content_id
from pipeline.storage import Store

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Stage(ABC, Generic[In, Out]):
    """Turns one input into rows. Its fields are its settings; a bad one raises ValueError at construction.

    `process` yields output rows and `Rejected` rows. An exception means a fault of the machine: the runner tries
    again. The same input and settings give the same rows, so a retry overwrites and never duplicates.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the same settings give other rows than before."""
    writes: ClassVar[tuple[type[Record], ...]]
    """The record types that `process` yields, `Rejected` aside."""
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "cpu"
    """What a worker is busy with: many `io` workers share a core, and their stage between them; a `blender` worker owns
    a child process."""
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data"})
    """Fields that do not change the rows: they are left out of `settings_id`."""

    side: ClassVar[bool] = False
    """A stage beside the chain. Its inputs are sought among the rows of the stage before it and the input that they
    came of, which go on to the stage after it as well; nothing comes of its own rows."""

    data: str
    """The data root: a folder or an fsspec URL."""

    @abstractmethod
    def process(self, item: In) -> Iterator[Out | Rejected]:
        """Yield the rows of one input."""

    @classmethod
    @abstractmethod
    def inputs(cls, rows: Sequence[Record]) -> list[In]:
        """This stage's inputs among the rows that earlier stages yielded for one of their inputs."""

    @classmethod
    def input_id(cls, item: Any) -> str:
        """The id by which the ledger knows an input."""
        return str(item.row_id)

    @classmethod
    def affinity(cls, item: Any) -> str:
        """What a worker has warm after this input: the next input of the same affinity is cheaper there."""
        return ""

    def memory_mb(self, item: In) -> float:
        """What a worker is expected to take for an input, in MB, where that is worth counting.

        Inputs wait that would not fit into the machine's memory beside what others are busy with.
        """
        return 0.0

    @property
    def at_once(self) -> int:
        """Inputs that one run works on at once, where they wait more than they work: of an `io` stage."""
        return 16

    @property
    def byte_budget(self) -> int:
        """Bytes of assets that the data root may hold before this stage begins nothing more; 0 for no limit."""
        return 0

    @property
    def store(self) -> Store:
        """The data root."""
        return Store(self.data)

    @cached_property
    def settings(self) -> str:
        """The settings that decide the rows, as JSON."""
        fields = dataclasses.asdict(self)
        decisive = {name: value for name, value in fields.items() if name not in self.machine_fields}
        return json.dumps({"version": self.version, **decisive}, sort_keys=True, default=str)

    @cached_property
    def settings_id(self) -> str:
        """Hash of `settings`."""
        return content_id(self.name, self.settings, length=10)

    def close(self) -> None:
        """Give back what the stage holds (child processes, connections).

        Called in each worker, at its end and when it is idle and others need the memory; more inputs may follow.
        """


def rejected(stage: Stage[Any, Any], rejected_id: str, reason: str, detail: str, name: str) -> Rejected:
    """A `Rejected` row of a stage; the detail is cut to a length fit for a table."""
    return Rejected(rejected_id=rejected_id, stage=stage.name, reason=reason, detail=detail[:2000], name=name)
