"""Fetches the WebAssembly decoders in `decoders/` anew and compares them with what is there.

`python -m render.blender.fetch_decoders` needs npm, and only who changes a version needs this. The decoders are taken
out of their authors' own packages byte for byte; docs/decisions/0010-compressed-gltf.md says why they are kept here.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

DECODERS = Path(__file__).parent / "decoders"


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of npm, and what of it is kept."""

    name: str
    version: str
    integrity: str
    """SHA-512 of the tarball, as npm states it."""
    files: dict[str, str]
    """Name here: path in the tarball."""


PACKAGES = (
    Package(
        name="meshoptimizer",
        version="1.3.0",
        integrity="2oZqMAcEEiCtXWUjIGtZ71oPx1B0ZxYGTqIKsXB1wzWFhleNsCFxQuUJzgCV706bRcwPWtMGf1odmQvAcqKkIw==",
        files={
            "meshopt_decoder.wasm": "package/meshopt_decoder.mjs",
            "meshopt_decoder.LICENSE": "package/LICENSE.md",
        },
    ),
    Package(
        name="three",
        version="0.187.0",
        integrity="Qiu7R+Cmh8CstZsY1uJOSWnVlfo7ZtNLV7mF8Jltk3LB3AtDu9cRZlcnRKkAk8Y4z6KKw35z7Y7Urd7jWY8etA==",
        files={"basis_transcoder.wasm": "package/examples/jsm/libs/basis/basis_transcoder.wasm"},
    ),
)


def main() -> None:
    """Fetch all; end with status 1 if something here differs."""
    differing = []
    for package in PACKAGES:
        for name, content in fetch(package).items():
            path = DECODERS / name
            if not path.exists() or path.read_bytes() != content:
                differing.append(name)
                path.write_bytes(content)
            print(f"{hashlib.sha256(content).hexdigest()}  {name}")
    if differing:
        sys.exit(f"written anew: {', '.join(differing)}")


def fetch(package: Package) -> dict[str, bytes]:
    """The kept files of a package.

    Raises:
        ValueError: The tarball is not the one that was looked at.
    """
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        tarball = next(Path(folder).glob("*.tgz"))
        digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if digest != package.integrity:
            raise ValueError(f"{spec} has the integrity sha512-{digest}")
        with tarfile.open(tarball) as tar:
            kept = {name: _member(tar, path) for name, path in package.files.items()}
    return {name: _unpacked(content) if name == "meshopt_decoder.wasm" else content for name, content in kept.items()}


def _member(tar: tarfile.TarFile, path: str) -> bytes:
    file = tar.extractfile(path)
    assert file
    return file.read()


def _unpacked(script: bytes) -> bytes:
    """The module inside meshopt_decoder.mjs, the variant without SIMD.

    It stands there as text of 64 symbols: one below 60 stands for a frequent byte, by a table; the other four are the
    first of two digits to the base 64.
    """
    text = script.decode()
    packed = re.search(r"wasm_base =\s*'([0-9A-Za-z:;]+)'", text)
    frequent = re.search(r"wasmpack = new Uint8Array\(\[([0-9,\s]+)\]\)", text)
    assert packed
    assert frequent
    table = [int(number) for number in re.findall(r"[0-9]+", frequent.group(1))]
    symbols = iter(_symbol(letter) for letter in packed.group(1))
    return bytes(table[symbol] if symbol < 60 else (symbol - 60) * 64 + next(symbols) for symbol in symbols)


def _symbol(letter: str) -> int:
    """0..63: a to z, A to Z, 0 to 9, colon, semicolon."""
    if letter.islower():
        return ord(letter) - ord("a")
    return ord(letter) - ord("A") + 26 if letter.isupper() else ord(letter) - ord("0") + 52


if __name__ == "__main__":
    main()
