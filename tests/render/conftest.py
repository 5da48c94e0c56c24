from collections.abc import Iterator

import pytest

from tests.render.blender_process import BlenderProcess


@pytest.fixture(scope="module")
def blender(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderProcess]:
    """One Blender child for a file of tests, which must end well."""
    process = BlenderProcess(tmp_path_factory.mktemp("log") / "child.log")
    yield process
    assert process.close() == 0
