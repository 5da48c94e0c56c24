import csv
import sys
from pathlib import Path

import pytest

from ingest.sources import samples as samples_module
from ingest.sources.manifest import Manifest
from ingest.sources.samples import Samples
from ingest.stage import Ingest
from pipeline.records import Rejected
from pipeline.storage import Store

MAKER = """
import pathlib, sys
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True)
(out / "a.glb").touch()
(out / "manifest.csv").write_text("file,spdx\\na.glb,CC0-1.0\\n")
pathlib.Path({calls!r}).open("a").write("made ")
"""


def test_samples_are_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_maker.py").write_text(MAKER.format(calls=str(tmp_path / "calls")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(samples_module, "MAKER", "toy_maker")
    source = Samples(cache=tmp_path / "cache")
    (item,) = source.items()
    assert (item.source, item.name, Path(item.uri).exists()) == ("samples", "a.glb", True)
    assert list(source.items()) == [item]
    assert (tmp_path / "calls").read_text() == "made "
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [Path(item.uri).parent.name]


def test_a_failing_maker_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_maker.py").write_text("raise SystemExit('no module named bpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(samples_module, "MAKER", "toy_maker")
    with pytest.raises(RuntimeError, match="no module named bpy"):
        list(Samples(cache=tmp_path / "cache", python=sys.executable).items())
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.blender
def test_the_real_samples_end_as_their_manifest_says(samples: Path, store: Store) -> None:
    with (samples / "manifest.csv").open(newline="") as file:
        expected = {row["file"]: row["expect"] for row in csv.DictReader(file)}
    stage = Ingest(data=store.root)
    rows = {item.name: next(stage.process(item)) for item in Manifest(path=samples / "manifest.csv").items()}
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        if isinstance(row, Rejected):
            assert f"rejected:{row.reason}" == expected[name], row.detail
        else:
            assert expected[name] not in ("rejected:truncated", "rejected:non_finite", "rejected:noai"), name
