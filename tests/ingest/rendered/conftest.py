from pathlib import Path
from typing import Any

import pytest

from tests.ingest.rendered.scene import SHA256, UIDS, make_diffusion4d, make_mv_video, write_licences


@pytest.fixture(scope="session")
def mv_video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """MV-Video's layout with three models of two animations each, and what its JSON says."""
    root = tmp_path_factory.mktemp("mv-video")
    return root, make_mv_video(root)


@pytest.fixture(scope="session")
def diffusion4d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Diffusion4D's layout as on the hub: one model with a turned orbit too, one named by its sha256."""
    root = tmp_path_factory.mktemp("diffusion4d")
    make_diffusion4d(root, UIDS[0])
    make_diffusion4d(root, UIDS[0], azimuth=0.37, elevation=12, kinds=("dynamic", "static"))
    make_diffusion4d(root, SHA256, kinds=("dynamic",))
    return root


@pytest.fixture(scope="session")
def licences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is known of two models; of the third nothing is."""
    path = tmp_path_factory.mktemp("licences") / "models.csv"
    known = {UIDS[0]: ("CC-BY-4.0", "Ann"), UIDS[1]: ("by-nc", "Bob"), SHA256: ("MIT", "Cem")}
    return write_licences(path, known)
