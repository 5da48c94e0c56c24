import uuid

import pytest

from pipeline.storage import Store


@pytest.fixture(params=["folder", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: object) -> Store:
    return Store(f"{tmp_path}/root" if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_read_and_listed(any_store: Store) -> None:
    any_store.write_bytes("a/b.bin", b"one")
    any_store.write_bytes("a/c/d.txt", b"two")
    assert any_store.read_bytes("a/b.bin") == b"one"
    assert any_store.list_files("a") == ["a/b.bin", "a/c/d.txt"]
    assert any_store.list_files("a", ".txt") == ["a/c/d.txt"]
    assert any_store.list_files("nowhere") == []
    with any_store.local_copy("a/c/d.txt") as path:
        assert path.read_bytes() == b"two"
    any_store.remove("a/b.bin")
    any_store.remove("a/b.bin")
    assert not any_store.exists("a/b.bin")


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(any_store: Store) -> None:
    any_store.write_bytes("x", b"old")

    def write_half() -> None:
        with any_store.writer("x") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert any_store.read_bytes("x") == b"old"
    assert any_store.list_files("") == ["x"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_paths_stay_below_the_root(any_store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="leaves the data root"):
        any_store.path(path)
