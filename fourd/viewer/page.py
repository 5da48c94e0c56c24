"""Writes the page: template, style and bundled program, with the object's files inside as they are."""

import base64
import hashlib
import html
from dataclasses import dataclass
from pathlib import Path

from fourd.export.errors import ExportError
from fourd.export.splats import SUFFIX, SplatSequence, read_packed, splats_bytes
from fourd.files import written_beside
from fourd.gltf import read_glb
from fourd.objects.drawn import check_shows
from fourd.objects.ply import read_ply

HERE = Path(__file__).parent
MAX_BYTES = 512 << 20
"""Most that a page carries; browsers refuse texts not much longer than that."""
PLY_FPS = 8.0
"""Frame rate of a folder of .ply files, which do not say: that of the clips."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page shows; at least one of the two."""

    title: str
    glb: bytes | None = None
    splats: bytes | None = None
    """A compact splat sequence: `fourd.export.splats`."""


def find_shown(path: Path) -> Shown:
    """What there is to show: a GLB, a splat .ply, a compact sequence, or a folder with some of these.

    Of several GLBs in a folder the one with motion from here is shown, of several sequences none can be chosen. A
    folder of .ply files without a sequence is one, in the order of their names.

    Raises:
        ExportError: `unsupported`: nothing to show, or more than one; or what the files' readers raise.
        ObjectError: A GLB or a .ply of which nothing can be shown.
        OSError: A file cannot be opened.
    """
    if path.is_dir():
        return _in_folder(path)
    if path.name.endswith(SUFFIX):
        read_packed(path)
        return Shown(title=path.name.removesuffix(SUFFIX), splats=path.read_bytes())
    if path.suffix.lower() == ".glb":
        check_shows(read_glb(path))
        return Shown(title=path.stem, glb=path.read_bytes())
    if path.suffix.lower() == ".ply":
        return Shown(title=path.stem, splats=_from_ply([path]))
    message = f"{path}: the viewer shows .glb, splat .ply, *{SUFFIX}, or a folder that has them"
    raise ExportError("unsupported", message)


def _in_folder(folder: Path) -> Shown:
    sequences = sorted(folder.glob(f"*{SUFFIX}"))
    meshes = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".glb")
    moving = [path for path in meshes if _is_ours(path)]
    clouds = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".ply")
    meshes = moving or meshes
    for kind, found in (("meshes", meshes), ("splat sequences", sequences)):
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:5])
            raise ExportError("unsupported", f"{folder} has several {kind} ({names}); give one of them")
    if not (sequences or meshes or clouds):
        message = f"{folder} has no .glb, no .ply and no *{SUFFIX}"
        raise ExportError("unsupported", f"{message}; give the folder that a reconstruction was written to")
    for path in meshes:
        check_shows(read_glb(path))
    splats = sequences[0].read_bytes() if sequences else _from_ply(clouds) if clouds else None
    if sequences:
        read_packed(sequences[0])
    return Shown(title=folder.resolve().name, glb=meshes[0].read_bytes() if meshes else None, splats=splats)


def _is_ours(path: Path) -> bool:
    extras = read_glb(path).document["asset"].get("extras")
    return isinstance(extras, dict) and "mv4d" in extras


def _from_ply(paths: list[Path]) -> bytes:
    return splats_bytes(SplatSequence(frames=tuple(read_ply(path) for path in paths), fps=PLY_FPS))


def write_page(shown: Shown, path: Path) -> int:
    """Write the page, whole or not at all; its size in bytes.

    Raises:
        ExportError: `too_large`.
    """
    size = len(shown.glb or b"") + len(shown.splats or b"")
    if size > MAX_BYTES:
        message = f"{path} would carry {size >> 20} MiB, at most {MAX_BYTES >> 20} are possible"
        raise ExportError("too_large", f"{message}; export fewer key frames or Gaussians")
    style = (HERE / "page" / "viewer.css").read_text("utf-8")
    program = (HERE / "viewer.min.js").read_text("utf-8")
    parts = {
        "style": style,
        "program": program,
        "style_hash": _csp_hash(style),
        "program_hash": _csp_hash(program),
        "title": html.escape(shown.title),
        "data": "\n".join(
            f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>'
            for name, content in (("glb", shown.glb), ("splats-file", shown.splats))
            if content
        ),
    }
    text = (HERE / "page" / "viewer.html").read_text("utf-8")
    pieces = text.split("{{")
    page = pieces[0] + "".join(parts[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces[1:]))
    with written_beside(path) as aside:
        aside.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path.stat().st_size


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
