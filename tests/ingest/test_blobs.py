import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from ingest.blobs import put_blob, write_tar
from pipeline.storage import Store


def test_a_blob_lies_under_its_own_hash_and_is_written_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"asset")
    digest = hashlib.sha256(b"asset").hexdigest()
    blob = put_blob(store, tmp_path / "a", "glb")
    assert (blob.path, blob.sha256, blob.num_bytes) == (f"blobs/{digest[:2]}/{digest}.glb", digest, 5)
    assert store.read_bytes(blob.path) == b"asset"
    before = os.stat(store.path(blob.path)).st_ino
    assert put_blob(store, tmp_path / "a", "glb", sha256=digest) == blob
    assert os.stat(store.path(blob.path)).st_ino == before


def test_a_blob_cut_short_is_written_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"asset")
    blob = put_blob(store, tmp_path / "a", "glb")
    store.write_bytes(blob.path, b"ass")
    put_blob(store, tmp_path / "a", "glb")
    assert store.read_bytes(blob.path) == b"asset"


def test_a_file_that_changes_meanwhile_is_not_stored(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"asset")
    with pytest.raises(OSError, match="changed"):
        put_blob(store, tmp_path / "a", "glb", sha256="0" * 64)
    assert store.list_files("blobs") == []


def test_equal_contents_make_equal_tars(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"")
    write_tar(tmp_path / "1.tar", {"x/ä.png": tmp_path / "a", "asset.gltf": tmp_path / "b"})
    os.utime(tmp_path / "a", (1, 1))
    os.chmod(tmp_path / "a", 0o600)
    write_tar(tmp_path / "2.tar", {"asset.gltf": tmp_path / "b", "x/ä.png": tmp_path / "a"})
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as tar:
        assert [(m.name, m.size, m.mtime, m.uid, m.uname) for m in tar] == [
            ("asset.gltf", 0, 0, 0, ""),
            ("x/ä.png", 3, 0, 0, ""),
        ]
