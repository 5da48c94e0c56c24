"""Runs WebAssembly decoders: their code can reach nothing but its own memory, which has a ceiling, as has its work.

The package wasmtime is used if it is there; without it, files that need a decoder are turned away by name.
"""

import atexit
import functools
import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from render.protocol import BadAsset

DECODERS = Path(__file__).parent / "decoders"
SHA256 = {
    "meshopt_decoder.wasm": "570d1ec554675d8c28dd25923d5490b2b62dca40252daa40d30b0ff912a09314",
    "basis_transcoder.wasm": "6cf17dc889352c42e9acf8897107978d127005fe3386c36a0e3845e27967630a",
}
FREE_BYTES = 64 << 20
"""Of memory, for a decoder's own tables."""
INSTRUCTIONS = 1 << 32
"""That any call may take, beside what its data deserve."""

Host = Callable[..., Any]
"""A function that a decoder may call; its first argument is the `Decoder`."""


class Decoder:
    """One instance of a module, for one piece of data."""

    def __init__(self, name: str, *, max_bytes: int, instructions: int, host: dict[str, Host] | None = None) -> None:
        """Start it.

        Args:
            name: A file of `decoders/`.
            max_bytes: Of memory, beside `FREE_BYTES`.
            instructions: Beside `INSTRUCTIONS`.
            host: By the name of the import; imports that are not listed do nothing.

        Raises:
            BadAsset: `unsupported_extension`: wasmtime is not there.
        """
        engine, module = _compiled(name)
        import wasmtime

        self._store = wasmtime.Store(engine)
        self._store.set_limits(memory_size=min(FREE_BYTES + max_bytes, (1 << 32) - 1))
        self._store.set_fuel(INSTRUCTIONS + instructions)
        imports = [
            wasmtime.Func(self._store, entry.type, self._host((host or {}).get(entry.name), len(entry.type.results)))
            for entry in module.imports
        ]
        self._exports = wasmtime.Instance(self._store, module, imports).exports(self._store)
        self.memory = next(entry for entry in self._exports.values() if isinstance(entry, wasmtime.Memory))
        self._faults = (wasmtime.WasmtimeError, wasmtime.Trap)

    def call(self, name: str, *arguments: int) -> Any:
        """What an exported function answers.

        Raises:
            ValueError: It ran into one of its limits, or out of its memory.
        """
        return self._run(self._exports[name], arguments)

    def call_indirect(self, table: str, index: int, *arguments: int) -> Any:
        """What a function of an exported table answers.

        Raises:
            ValueError: As `call`.
        """
        functions: Any = self._exports[table]
        return self._run(functions.get(self._store, index), arguments)

    def read(self, start: int, count: int) -> bytes:
        """Bytes of its memory."""
        return bytes(self.memory.read(self._store, start, start + count))

    def write(self, start: int, data: bytes) -> None:
        """Set bytes of its memory."""
        self.memory.write(self._store, data, start)

    def text(self, start: int) -> str:
        """A zero-terminated string of its memory."""
        return self.read(start, 256).partition(b"\0")[0].decode("latin-1")

    def words(self, start: int, count: int) -> list[int]:
        """Unsigned 32-bit numbers of its memory."""
        return [int.from_bytes(self.read(start + 4 * place, 4), "little") for place in range(count)]

    def grow_to(self, num_bytes: int) -> bool:
        """Enlarge its memory; False if the ceiling is lower."""
        missing = num_bytes - self.memory.data_len(self._store)
        try:
            self.memory.grow(self._store, max(0, -(-missing // 65536)))
        except self._faults:
            return False
        return True

    def _host(self, function: Host | None, num_results: int) -> Callable[..., Any]:
        decoder = weakref.ref(self)  # without a circle, its memory is freed with it

        def called(*arguments: Any) -> Any:
            return function(decoder(), *arguments) if function else (0 if num_results else None)

        return called

    def _run(self, function: Any, arguments: tuple[int, ...]) -> Any:
        try:
            return function(self._store, *arguments)
        except self._faults as fault:
            raise ValueError(str(fault).splitlines()[-1][:200]) from fault


@functools.cache
def _compiled(name: str) -> tuple[Any, Any]:
    """Engine and module, compiled once a process: half a second for the larger one."""
    try:
        import wasmtime
    except ImportError:
        raise BadAsset(
            "unsupported_extension",
            "it is compressed, and Blender's interpreter lacks the decoder: `pip install wasmtime` there",
        ) from None
    code = (DECODERS / name).read_bytes()
    if hashlib.sha256(code).hexdigest() != SHA256[name]:
        raise RuntimeError(f"{DECODERS / name} is damaged: install mv4d again")
    config = wasmtime.Config()
    config.consume_fuel = True
    # Checks in the code instead of signal handlers and guard pages: Blender has handlers of its own, and the sandbox
    # counts reserved memory and forbids files in memory.
    config.signals_based_traps = False
    config.memory_reservation = 0
    config.memory_reservation_for_growth = 0
    config.memory_guard_size = 0
    config.memory_init_cow = False
    config.parallel_compilation = False
    engine = wasmtime.Engine(config)
    return engine, wasmtime.Module(engine, code)


atexit.register(_compiled.cache_clear)  # wasmtime's own exit handlers come later, and would find it half gone
