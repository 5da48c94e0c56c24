import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline.records import Sample
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.attribution import attribution_markdown, escaped
from shards.cards import CardSettings, write_cards
from shards.pack import Packer
from shards.readme import size_category, size_in_words
from shards.views import Shard
from tests.shards.conftest import SMALL
from tests.shards.toys import Toy, commit

PAPERS = (
    "README.md",
    "ATTRIBUTION.md",
    "attribution.parquet",
    "LICENSES/README.md",
    "samples.parquet",
    "croissant.json",
)


def papers(tables: Tables) -> dict[str, bytes]:
    return {name: tables.store.read_bytes(f"shards/{name}") for name in PAPERS}


def header(tables: Tables) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(papers(tables)["README.md"].decode().split("---\n")[1])
    return found


def test_the_same_shards_give_the_same_papers(packed: Tables) -> None:
    before = papers(packed)
    written = write_cards(packed, CardSettings(name="Toys"))
    assert sorted(written) == sorted(f"shards/{name}" for name in PAPERS)
    assert papers(packed) == before


def test_the_header_points_at_tars_that_are_there(packed: Tables) -> None:
    found = header(packed)
    assert found["license"] == "other"
    assert found["license_details"] == "CC-BY-4.0, CC0-1.0, CC-BY-SA-4.0"
    assert found["size_categories"] == ["n<1K"]
    configs = found["configs"]
    assert isinstance(configs, list)
    assert [config["config_name"] for config in configs] == ["all", "by", "cc0", "by-sa"]
    folder = Path(packed.store.path("shards"))
    patterns = [files["path"] for config in configs for files in config["data_files"]]
    flat = [path for pattern in patterns for path in ([pattern] if isinstance(pattern, str) else pattern)]
    assert all(list(folder.glob(path)) for path in flat)


def test_a_data_set_under_one_licence_says_so(tables: Tables) -> None:
    commit(tables, [Toy(seq=0), Toy(seq=1)])
    Packer(tables, SMALL).pack()
    write_cards(tables)
    found = header(tables)
    assert found["license"] == "cc-by-4.0"
    configs = found["configs"]
    assert isinstance(configs, list)
    assert [config["config_name"] for config in configs] == ["by"]


def test_the_snippets_of_the_card_run_as_they_stand(packed_once: Path, tmp_path: Path) -> None:
    readme = (packed_once / "shards" / "README.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(snippets) == 3
    program = tmp_path / "snippets.py"
    program.write_text("\n".join(f"exec({snippet!r}, {{}})\nprint('---')" for snippet in snippets))
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=packed_once / "shards",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, third = (part.strip() for part in done.stdout.split("---")[:3])
    assert re.fullmatch(r"\w+_000_0_\w+ Walk.000 \(4, 24, 24, 4\) \[.*\]", first)
    assert second.endswith("Toy 0 (24, 96)")
    assert re.fullmatch(r"[a-z0-9-]+/train/mv-\d{6}\.tar \(24, 96\)", third)


def test_croissant_is_valid_and_its_records_can_be_read(packed: Tables) -> None:
    path = packed.store.path("shards/croissant.json")
    dataset = mlcroissant.Dataset(jsonld=path)
    assert dataset.metadata.ctx.issues.errors == set()
    assert dataset.metadata.ctx.conforms_to == mlcroissant._src.core.context.CroissantVersion.V_1_1
    read = list(dataset.records("samples"))
    assert {record["samples/key"].decode() for record in read} == {row.sample_key for row in packed.rows(Sample)}
    assert all(record["samples/num_frames"] == 4 for record in read)


def test_croissant_names_every_file_with_its_hash(packed: Tables) -> None:
    content = json.loads(papers(packed)["croissant.json"])
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    files = {entry["@id"]: entry["sha256"] for entry in content["distribution"] if entry["@type"] == "cr:FileObject"}
    assert len(files) == len(packed.rows(Shard)) + 1
    for name, sha256 in files.items():
        assert hashlib.sha256(packed.store.read_bytes(f"shards/{name}")).hexdigest() == sha256
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in content["license"]
    assert "datePublished" not in content


def test_the_date_of_publication_comes_from_outside(packed: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    settings = CardSettings(homepage="https://example.org/set", publisher="Somebody", cite_as="@misc{toys}")
    write_cards(packed, settings)
    content = json.loads(papers(packed)["croissant.json"])
    assert content["datePublished"].startswith("2026-01-01")
    assert (content["url"], content["citeAs"]) == ("https://example.org/set", "@misc{toys}")
    assert "@misc{toys}" in papers(packed)["README.md"].decode()


def test_every_packed_asset_is_credited_and_no_other(packed: Tables) -> None:
    found = set(pq.read_table(packed.store.path("shards/attribution.parquet"))["asset_id"].to_pylist())
    assert found == {row.asset_id for row in packed.rows(Sample)}
    markdown = papers(packed)["ATTRIBUTION.md"].decode()
    assert all(f"`{asset_id[:12]}`" in markdown for asset_id in found)
    licences = papers(packed)["LICENSES/README.md"].decode()
    assert "<https://creativecommons.org/publicdomain/zero/1.0/>" in licences
    assert "CC-BY-NC" not in licences


def test_titles_of_strangers_cannot_put_markup_into_the_card(tables: Tables) -> None:
    evil = "a|b <img src=x>\n# [click](http://x.org/y_z) `rm`"
    commit(tables, [Toy(seq=0, title=evil)])
    Packer(tables, SMALL).pack()
    write_cards(tables)
    line = next(line for line in papers(tables)["ATTRIBUTION.md"].decode().splitlines() if line.startswith("- "))
    assert not re.search(r"(?<!\\)<img|(?<!\\)\[click|(?<!\\)`rm", line)
    assert "<https://example.org/0>" in line
    assert escaped("a\nb  c") == "a b c"


def test_attribution_of_nothing_is_still_a_page() -> None:
    assert attribution_markdown([]).startswith("# Attribution\n\n0 assets")


def test_the_index_that_goes_out_points_into_the_tars(packed: Tables) -> None:
    folder = packed.store.path("shards")
    rows = pq.read_table(f"{folder}/samples.parquet").to_pylist()
    assert len(rows) == len(packed.rows(Sample))
    for row in rows:
        content = Path(folder, row["shard"]).read_bytes()
        part = row["parts"][0]
        record = json.loads(content[part["offset"] : part["offset"] + part["num_bytes"]])
        assert (record["key"], record["licence"]["spdx"]) == (row["key"], row["spdx"])


def test_nothing_packed_is_nothing_to_describe(tables: Tables) -> None:
    with pytest.raises(ValueError, match="run `mv4d pack` first"):
        write_cards(tables)


def test_cards_for_an_object_store(packed: Tables) -> None:
    remote = Tables(Store("memory://cards"))
    for path in packed.store.list_files(""):
        remote.store.write_bytes(path, packed.store.read_bytes(path))
    before = papers(packed)
    for path in remote.store.list_files("shards"):
        if not path.endswith(".tar"):
            remote.store.remove(path)
    write_cards(remote, CardSettings(name="Toys"))
    assert papers(remote) == before


@pytest.mark.parametrize(("number", "word"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (115_566, "100K<n<1M")])
def test_size_categories_of_the_hub(number: int, word: str) -> None:
    assert size_category(number) == word


@pytest.mark.parametrize(("number", "words"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (2.5e12, "2.5 TB")])
def test_sizes_in_words(number: float, words: str) -> None:
    assert size_in_words(number) == words


def test_the_modules_that_only_count_do_not_wait_for_croissant() -> None:
    source = (Path(__file__).parents[2] / "shards" / "cards.py").read_text()
    top = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    assert "shards.croissant" not in {node.module for node in top}
