import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourd.gaussians import Gaussians
from fourd.objects.errors import ObjectError
from fourd.objects.ply import MAX_GAUSSIANS, read_ply, write_ply


def some_gaussians(degree: int = 1, count: int = 7) -> Gaussians:
    generator = torch.Generator().manual_seed(degree)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return Gaussians(
        means=normal(count, 3), quats=normal(count, 4), log_scales=normal(count, 3), opacity_logits=normal(count),
        sh=normal(count, (degree + 1) ** 2, 3),
    )  # fmt: skip


def equal(first: Gaussians, second: Gaussians) -> bool:
    return all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


@pytest.mark.parametrize("degree", range(4))
def test_what_is_written_is_read(tmp_path: Path, degree: int) -> None:
    gaussians = some_gaussians(degree)
    write_ply(gaussians, tmp_path / "new" / "a.ply")
    again = read_ply(tmp_path / "new" / "a.ply")
    assert equal(again, gaussians)
    assert again.sh_degree == degree
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.ply"]


def test_the_layout_is_the_published_one(tmp_path: Path) -> None:
    """Byte for byte, from the list of fields; nothing of ours reads it back."""
    gaussians = some_gaussians(1, count=2)
    write_ply(gaussians, tmp_path / "a.ply")
    content = (tmp_path / "a.ply").read_bytes()
    header, _, body = content.partition(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{i}" for i in range(9)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert lines[3:] == [f"property float {name}" for name in names]
    rows = np.frombuffer(body, "<f4").reshape(2, len(names))
    table = dict(zip(names, rows.T, strict=True))
    assert np.array_equal(table["x"], gaussians.means[:, 0].numpy())
    assert np.array_equal(table["f_dc_2"], gaussians.sh[:, 0, 2].numpy())
    # Three coefficients of red, then of green, then of blue.
    assert np.array_equal(table["f_rest_1"], gaussians.sh[:, 2, 0].numpy())
    assert np.array_equal(table["f_rest_3"], gaussians.sh[:, 1, 1].numpy())
    assert np.array_equal(table["f_rest_8"], gaussians.sh[:, 3, 2].numpy())
    assert np.array_equal(table["opacity"], gaussians.opacity_logits.numpy())
    assert np.array_equal(table["scale_1"], gaussians.log_scales[:, 1].numpy())
    assert np.array_equal(table["rot_0"], gaussians.quats[:, 0].numpy())


FIELDS = [
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    "scale_0",
    "scale_1",
    "scale_2",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
]


def ply(
    values: np.ndarray | None = None,
    *,
    fields: list[str] | None = None,
    kind: str = "binary_little_endian",
    count: int | str | None = None,
    number: str = "float",
    before: str = "",
    after: str = "",
    end: str = "\n",
) -> bytes:
    """A .ply file with some lines of its header or the body amiss."""
    fields = FIELDS if fields is None else fields
    values = np.arange(3 * len(fields), dtype=np.float64).reshape(3, -1) / 8 + 0.25 if values is None else values
    lines = ["ply", f"format {kind} 1.0", "comment made by hand", *before.splitlines()]
    lines += [f"element vertex {len(values) if count is None else count}"]
    lines += [f"property {number} {name}" for name in fields] + after.splitlines() + ["end_header"]
    header = "".join(line + end for line in lines).encode()
    if kind == "ascii":
        return header + "\n".join(" ".join(str(value) for value in row) for row in values).encode()
    order = "<" if kind == "binary_little_endian" else ">"
    return header + values.astype(order + {"float": "f4", "double": "f8", "int": "i4"}[number]).tobytes()


def read(tmp_path: Path, content: bytes) -> Gaussians:
    (tmp_path / "in.ply").write_bytes(content)
    return read_ply(tmp_path / "in.ply")


def test_other_orders_and_numbers(tmp_path: Path) -> None:
    wanted = read(tmp_path, ply())
    assert torch.equal(wanted.means[1], torch.tensor([2.0, 2.125, 2.25]))
    assert wanted.sh_degree == 0
    for content in (
        ply(kind="binary_big_endian"),
        ply(kind="ascii"),
        ply(number="double"),
        ply(end="\r\n"),
        ply(after="element camera 1\nproperty list uchar int names"),
        ply() + b"more at the end",
    ):
        assert equal(read(tmp_path, content), wanted)
    turned = list(reversed(FIELDS))
    values = np.arange(3 * 14, dtype=np.float64).reshape(3, -1) / 8 + 0.25
    assert equal(read(tmp_path, ply(values[:, ::-1], fields=turned)), wanted)


def with_value(value: float, field: str) -> bytes:
    values = np.ones((3, len(FIELDS)))
    values[1, FIELDS.index(field)] = value
    return ply(values)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "malformed", "not a .ply"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\n", "malformed", "not a .ply"),
        (b"ply\n" + b"comment x\n" * 20_000 + b"end_header\n", "malformed", "not a .ply"),
        (b"solid stl\nend_header\n", "malformed", "not a .ply"),
        (ply().replace(b"little", b"middle"), "malformed", "none of the formats"),
        (ply(count=-1), "malformed", "how many"),
        (ply(count="many"), "malformed", "how many"),
        (ply(count="9" * 400), "malformed", "how many"),
        (ply(count=0), "empty_mesh", "no Gaussians"),
        (ply(count=10**15), "too_large", "more than"),
        (ply(count=MAX_GAUSSIANS), "malformed", "cut off"),
        (ply(count=MAX_GAUSSIANS, kind="ascii"), "malformed", "cut off"),
        (ply()[:-1], "malformed", "promises 3 Gaussians, 2 are there"),
        (ply(count=4, kind="ascii") + b"\n" + b" " * 500, "malformed", "3 are there"),
        (ply(fields=["x", "y", "z", "red", "green", "blue"]), "unsupported", "f_dc_0"),
        (ply(fields=FIELDS[:-1]), "unsupported", "rot_3"),
        (ply(fields=[*FIELDS, "x"]), "malformed", "of no use"),
        (ply(fields=[*FIELDS, "f_rest_0"]), "malformed", "1 fields"),
        (ply(fields=[*FIELDS, *(f"f_rest_{i}" for i in range(1, 10))]), "malformed", "f_rest"),
        (ply(fields=[*FIELDS, *(f"f_rest_{i:03}" for i in range(9))]), "malformed", "f_rest"),
        (ply(after="property list uchar int vertex_indices"), "unsupported", "list"),
        (ply(after="property float"), "malformed", "of no use"),
        (ply(before="element chunk 1\nproperty float min_x"), "unsupported", "compressed"),
        (ply(before="element face 1\nproperty list uchar int vertex_indices"), "unsupported", "does not begin"),
        (with_value(np.nan, "y"), "non_finite", "first 1, y"),
        (with_value(np.inf, "opacity"), "non_finite", "opacity"),
        (ply(np.full((3, 14), 1e300), number="double"), "non_finite", "has 3 Gaussians"),
        (ply(np.zeros((3, 14))), "malformed", "length zero"),
        (ply(kind="ascii").replace(b"0.25", b"zero"), "malformed", "not numbers"),
        (ply(kind="ascii").replace(b" 0.375", b""), "malformed", "not numbers"),
    ],
)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str, words: str) -> None:
    with pytest.raises(ObjectError) as caught:
        read(tmp_path, content)
    assert caught.value.reason == reason
    assert words in str(caught.value)
    assert "in.ply" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.ply", tmp_path):
        with pytest.raises(ObjectError, match="not_found"):
            read_ply(path)


def test_a_header_that_lies_takes_no_memory(tmp_path: Path) -> None:
    many = [*FIELDS, *(f"extra_{index}" for index in range(900))]
    content = ply(np.ones((3, len(many))), fields=many, count=MAX_GAUSSIANS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ObjectError, match="cut off"):
        read(tmp_path, content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB; it claims 70 GB


def mutated(content: bytes) -> st.SearchStrategy[bytes]:
    def change(edits: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for place, value in edits:
            changed[place % len(changed)] = value
        return bytes(changed)

    return st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4).map(change)


@pytest.mark.parametrize("make", [ply, lambda: ply(kind="ascii")])
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    @given(content=mutated(make()))
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def check(content: bytes) -> None:
        try:
            gaussians = read(tmp_path, content)
        except ObjectError:
            return
        assert all(bool(torch.isfinite(value).all()) for value in vars(gaussians).values())

    check()
