"""The rules that keep the folders apart: docs/architecture.md."""

import ast
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "ingest", "render", "curate", "shards", "training", "fourd")
STAGES = PACKAGES[1:]
COMPOSERS = {"pipeline/animate.py", "pipeline/build.py", "pipeline/demo.py", "pipeline/estimate.py"}
"""The only files that may know all stages: they put them in a row."""


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    return imports_of(ast.parse(path.read_text()))


def imports_of(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_stage_imports_the_pipeline_and_itself(path: Path) -> None:
    if name(path) in COMPOSERS:
        return
    own = name(path).split("/")[0]
    foreign = {module for module in imports(path) if module.split(".")[0] in STAGES} - {own}
    assert not {module for module in foreign if module.split(".")[0] != own}


@pytest.mark.parametrize("path", modules(), ids=name)
def test_only_the_blender_folder_imports_bpy(path: Path) -> None:
    if not name(path).startswith("render/blender/"):
        assert not {module for module in imports(path) if module.split(".")[0] in ("bpy", "mathutils", "bmesh")}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "render" / "blender").glob("*.py")), ids=name)
def test_the_blender_child_needs_only_numpy_and_bpy(path: Path) -> None:
    allowed = {"bpy", "mathutils", "bmesh", "numpy", "render", "io_scene_fbx", "io_scene_gltf2"}
    decoders = {"wasmtime", "PIL"}  # looked for when a file needs them
    third_party = {module.split(".")[0] for module in imports(path)} - set(__import__("sys").stdlib_module_names)
    assert third_party <= allowed | decoders
    at_once = ast.Module([node for node in ast.parse(path.read_text()).body if "Import" in type(node).__name__], [])
    assert not {module.split(".")[0] for module in imports_of(at_once)} & decoders
    assert not {
        m for m in imports(path) if m.startswith("render.") and not m.startswith(("render.blender", "render.protocol"))
    }


@pytest.mark.parametrize("path", modules(), ids=name)
def test_the_data_side_imports_no_torch_and_the_training_side_no_ray(path: Path) -> None:
    side = name(path).split("/")[0]
    forbidden = {"ray", "bpy"} if side in ("training", "fourd") else {"torch", "lightning", "diffusers", "gsplat"}
    assert not {module for module in imports(path) if module.split(".")[0] in forbidden}


def test_except_exception_stands_only_where_the_machine_is_blamed() -> None:
    """Bad data is `Rejected`; a fault of the machine is an exception that the runner retries."""
    catchers = {
        name(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    }
    # Storage removes its partial file whatever happens, and who writes for others hands them what befell it; importers
    # inside Blender raise anything at all.
    assert catchers <= {
        "pipeline/backends.py",
        "pipeline/group_commit.py",
        "pipeline/storage.py",
        "render/blender/child.py",
    }


def test_every_package_is_listed_and_says_what_it_does() -> None:
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        str(path.parent.relative_to(REPOSITORY)).replace("/", ".") for path in modules() if path.name == "__init__.py"
    }
    assert set(listed) == on_disk
    for package in PACKAGES:
        assert ast.get_docstring(ast.parse((REPOSITORY / package / "__init__.py").read_text()))


def test_the_lock_pins_every_package_with_hashes() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(pins) > 100
    assert all("==" in line for line in pins)
    assert "--hash=sha256:" in "".join(lines)
    assert not [line for line in lines if "http://" in line or "https://" in line]
    # Which build of torch is right depends on the machine; a lock that names one is of no use on another.
    assert not [line for line in pins if line.startswith(("torch==", "nvidia-", "cuda-", "triton=="))]


def test_every_extra_is_inside_the_lock() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].split("[")[0] for line in (REPOSITORY / "requirements.lock").read_text().splitlines()}
    pinned |= set((REPOSITORY / ".ci" / "not-locked.txt").read_text().splitlines())
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        package = requirement.split(";")[0].strip()
        for mark in "<>=[!~ ":
            package = package.split(mark)[0]
        assert package.lower().replace("_", "-") in pinned, package
