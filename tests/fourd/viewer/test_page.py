"""The viewer's page in a real browser, opened from disk as a person opens it."""

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fourd.export.errors import ExportError
from fourd.export.glb import write_animated_glb
from fourd.export.splats import SplatSequence, read_splats, write_ply_frames, write_splats
from fourd.gaussians import Gaussians
from fourd.objects.static import StaticObject
from fourd.viewer import __main__ as command
from fourd.viewer import page as page_module
from fourd.viewer.page import Shown, find_shown, write_page
from pipeline.cameras import look_at_origin, project
from tests.chromium import launched
from tests.fourd.export.objects import bent, static_of, write_toy

NUM_FRAMES, FPS = 8, 8.0
VIEWER = Path(command.__file__).parent


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[StaticObject, np.ndarray]:
    static = static_of(write_toy(tmp_path_factory.mktemp("toy") / "toy.glb"))
    tracks = bent(static.vertices, NUM_FRAMES)
    tracks[..., 0] += 0.2 * np.sin(2 * np.pi * np.arange(NUM_FRAMES) / NUM_FRAMES)[:, None]
    return static, tracks


@pytest.fixture(scope="module")
def folder(toy: tuple[StaticObject, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reconstruction leaves: the animated mesh, and Gaussians on its surface."""
    static, tracks = toy
    out = tmp_path_factory.mktemp("robot")
    write_animated_glb(static, tracks, FPS, out / "animated.glb")
    write_splats(splats_on(static, tracks), out / "robot.splats.safetensors")
    return out


def splats_on(static: StaticObject, tracks: np.ndarray, count: int = 3000) -> SplatSequence:
    """Small Gaussians spread over the faces: blue where x is low, red where it is high."""
    rng = np.random.default_rng(0)
    corners = static.vertices[static.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face, weight = rng.choice(len(area), count, p=area / area.sum()), rng.dirichlet((1, 1, 1), count)
    means = np.einsum("nk,tnkd->tnd", weight, tracks[:, static.faces[face]]).astype(np.float32)
    share = (means[0, :, :1] + 1) / 2
    colour = np.concatenate([share, np.full_like(share, 0.3), 1 - share], axis=1)
    frames = tuple(
        Gaussians(
            means=torch.from_numpy(points),
            quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            log_scales=torch.full((count, 3), 0.012).log(),
            opacity_logits=torch.full((count,), 5.0),
            sh=torch.from_numpy((colour - 0.5) / 0.28209479)[:, None],
        )
        for points in means
    )
    return SplatSequence(frames=frames, fps=FPS)


def test_the_bundled_program_is_that_of_the_sources() -> None:
    sources = [(VIEWER / "page" / name).read_bytes() for name in ("package-lock.json", "splats.js", "viewer.js")]
    wanted = hashlib.sha256(b"\0".join(sources)).hexdigest()
    bundle = (VIEWER / "viewer.min.js").read_text("utf-8")
    assert f"Sources: {wanted} " in bundle[:500], "run `make viewer`"
    assert "</script" not in bundle.lower()
    assert "<!--" not in bundle
    licences = (VIEWER / "LICENSES.txt").read_text()
    for package, version in re.findall(r"(\S+) (\d+\.\d+\.\d+) \(MIT\)", bundle[:200]):
        assert f"{package} {version} (MIT)" in licences


def test_a_page_is_written_beside_what_it_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(folder), "--no_open"]) == 0
    assert str(folder / "view.html") in capsys.readouterr().out.replace("\n", "")
    assert command.page_beside(folder / "robot.splats.safetensors") == folder / "robot.html"
    assert command.page_beside(folder / "animated.glb") == folder / "animated.html"
    text = (folder / "view.html").read_text("utf-8")
    assert base64.b64encode((folder / "animated.glb").read_bytes()).decode() in text
    (folder / "view.html").unlink()


def test_a_folder_shows_the_mesh_that_moves(folder: Path, toy: tuple[StaticObject, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "run")
    shutil.copy(toy[0].source, tmp_path / "run" / "canonical.glb")
    assert find_shown(tmp_path / "run").glb == (folder / "animated.glb").read_bytes()
    shutil.copy(folder / "animated.glb", tmp_path / "run" / "twice.glb")
    with pytest.raises(ExportError, match="several meshes"):
        find_shown(tmp_path / "run")


def test_a_page_holds_what_there_is_and_lets_nothing_else_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.html"
    size = write_page(Shown(title="<b>&\udcff", glb=b"12"), path)
    page = path.read_text("utf-8")
    assert size == path.stat().st_size
    assert "<title>&lt;b&gt;&amp;?" in page
    assert 'id="glb"' in page
    assert 'id="splats-file"' not in page
    policy = page.partition("Content-Security-Policy")[2].partition(">")[0]
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy)) == 2
    monkeypatch.setattr(page_module, "MAX_BYTES", 1)
    with pytest.raises(ExportError, match="too_large"):
        write_page(Shown(title="b", glb=b"12"), tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


def test_titles_and_rates_are_those_of_the_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_shown(folder / "robot.splats.safetensors").title == "robot"
    monkeypatch.chdir(folder)
    assert find_shown(Path(".")).title == folder.name
    sequence = read_splats(folder / "robot.splats.safetensors")
    write_ply_frames(sequence, tmp_path / "frames")
    (tmp_path / "again.splats.safetensors").write_bytes(find_shown(tmp_path / "frames").splats or b"")
    assert read_splats(tmp_path / "again.splats.safetensors").fps == 8.0
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.splats.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ExportError, match=r"a\.splats\.safetensors"):
        find_shown(damaged)


def test_a_folder_of_ply_frames_is_a_sequence(folder: Path, tmp_path: Path) -> None:
    sequence = read_splats(folder / "robot.splats.safetensors")
    write_ply_frames(sequence, tmp_path / "frames")
    shown = find_shown(tmp_path / "frames")
    assert shown.glb is None
    (tmp_path / "again.splats.safetensors").write_bytes(shown.splats or b"")
    again = read_splats(tmp_path / "again.splats.safetensors")
    assert len(again.frames) == NUM_FRAMES
    assert (again.frames[5].means - sequence.frames[5].means).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"hello", "unsupported"),
        ("a.glb", b"<html>", "malformed"),
        ("a.ply", b"ply\nformat ascii 1.0\n", "malformed"),
        ("a.splats.safetensors", b"\xff" * 40, "malformed"),
    ],
)
def test_what_cannot_be_shown_is_told(
    tmp_path: Path, name: str, content: bytes, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        command.main([str(tmp_path / name), "--no_open"])
    assert caught.value.code == 2
    said = capsys.readouterr().err.replace("\n", "")
    assert reason in said
    assert name in said
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_folder_and_a_file_that_is_not_there_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, words in ((tmp_path, "has no .glb"), (tmp_path / "gone.glb", "does not exist")):
        with pytest.raises(SystemExit):
            command.main([str(path), "--no_open"])
        assert words in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # WebGL without a graphics card.
    with launched("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist") as browser:
        yield browser


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page; by the end it must not have complained or asked the network for a thing."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def open_one(shown: Shown, *, address: str = "", before: str = "", size: tuple[int, int] = (360, 400)) -> Any:
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if before:
            page.add_init_script(before)
        page.on("console", lambda message: complaints.append(message.text) if message.type != "warning" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        write_page(shown, tmp_path / "view.html")
        page.goto((tmp_path / "view.html").as_uri() + address, wait_until="commit")
        page.wait_for_selector("#controls:not([hidden]), #message:not([hidden])")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file://", "data:", "blob:"))] == []


def settle(page: Any) -> None:
    """Wait until the picture is drawn, and for splats until they are sorted too."""
    sorted_too = "viewer.mode === 'mesh' || (viewer.spark.activeSplats > 0 && !viewer.spark.sorting)"
    still = f"viewer.pictures > 0 && !viewer.dirty && ({sorted_too})"
    calm = 0
    for _ in range(600):
        calm = calm + 1 if page.evaluate(still) else 0
        if calm >= 4:
            return
        page.wait_for_timeout(50)
    raise AssertionError("the picture never came to rest")


def picture(page: Any) -> np.ndarray:
    """The canvas, (height, width, 4) in 0..1, straight alpha."""
    settle(page)
    address = page.evaluate("viewer.canvas.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA")) / 255.0


def seek(page: Any, seconds: float, azimuth_deg: float, mode: str) -> None:
    page.evaluate(f"location.hash = 't={seconds}&azimuth={azimuth_deg}&elevation=10&mode={mode}'")
    page.wait_for_timeout(100)


def outline(points: np.ndarray, azimuth_deg: float, height: int, width: int) -> np.ndarray:
    """Left, top, right and bottom of the points as the page's camera sees them, in pixels."""
    focal = 0.5 * height / np.tan(np.radians(20.0))
    pixels = project(points, look_at_origin(azimuth_deg, 10.0, 3.0), (focal, focal, width / 2, height / 2))
    return np.concatenate([pixels[:, :2].min(axis=0), pixels[:, :2].max(axis=0)])


def drawn_outline(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image[..., 3] > 0.3)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.browser
def test_every_frame_stands_where_the_cameras_of_the_clips_see_it(
    open_page: Open, folder: Path, toy: tuple[StaticObject, np.ndarray]
) -> None:
    page = open_page(find_shown(folder), address="#t=0")
    tracks = toy[1]
    for mode, allowed_px in (("mesh", 2.0), ("splats", 6.0)):
        for frame, azimuth_deg in ((0, 0.0), (2, 0.0), (6, 130.0)):
            seek(page, frame / FPS, azimuth_deg, mode)
            image = picture(page)
            expected = outline(tracks[frame], azimuth_deg, *image.shape[:2])
            assert np.abs(drawn_outline(image) - expected).max() < allowed_px
    still, moved = (outline(tracks[frame], 0.0, *image.shape[:2]) for frame in (0, 2))
    assert np.abs(still - moved).max() > 10.0


@pytest.mark.browser
def test_splats_have_their_colours(open_page: Open, folder: Path) -> None:
    page = open_page(Shown(title="robot", splats=(folder / "robot.splats.safetensors").read_bytes()), address="#t=0")
    image = picture(page)
    covered = image[..., 3] > 0.9
    columns = np.indices(covered.shape)[1]
    left, right = (image[covered & part, :3].mean(axis=0) for part in (columns < 160, columns > 200))
    # Seen from the front, x grows to the right; green is 0.3 everywhere.
    assert left[2] - left[0] > 0.15
    assert right[0] - right[2] > 0.15
    assert left[1] == pytest.approx(0.3, abs=0.04)
    assert page.locator("#modes").is_hidden()


@pytest.mark.browser
def test_time_runs_as_fast_as_it_should(open_page: Open, folder: Path) -> None:
    page = open_page(find_shown(folder), address="#paused")
    settle(page)
    gone = """async (speed) => {
        viewer.setSpeed(speed); viewer.seek(0); viewer.setPlaying(true);
        await new Promise((done) => setTimeout(done, 300));
        let [last, total, start, pictures] = [viewer.time, 0, performance.now(), 0];
        // On a busy machine a picture takes long, and few of them say little.
        for (; performance.now() - start < 1000 || pictures < 10; pictures++) {
            await new Promise(requestAnimationFrame);
            total += ((viewer.time - last) % viewer.duration + viewer.duration) % viewer.duration;
            last = viewer.time;
        }
        const seconds = (performance.now() - start) / 1000;
        viewer.setPlaying(false);
        return total / seconds;
    }"""
    assert page.evaluate("viewer.duration") == NUM_FRAMES / FPS
    for speed in (0.5, 0.25):
        assert page.evaluate(gone, speed) == pytest.approx(speed, rel=0.25)


@pytest.mark.browser
def test_keys_and_controls_play_step_scrub_and_switch(open_page: Open, folder: Path) -> None:
    page = open_page(find_shown(folder))
    assert page.evaluate("viewer.playing")
    page.keyboard.press(" ")
    assert not page.evaluate("viewer.playing")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.locator("#clock").inner_text() == "0.25 s · frame 3 of 8"
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.locator("#clock").inner_text() == "0.00 s · frame 1 of 8"
    page.locator("#scrub").fill("0.5")
    settle(page)
    assert page.locator("#clock").inner_text() == "0.50 s · frame 5 of 8"
    page.keyboard.press("+")
    assert page.locator("#speed").input_value() == "2"
    page.locator("#speed").select_option("0.5")
    assert page.evaluate("viewer.speed") == 0.5
    page.locator("#canvas").focus()
    assert "204 triangles" in page.locator("#facts").inner_text()
    page.keyboard.press("m")
    assert "3,000 Gaussians" in page.locator("#facts").inner_text()
    page.get_by_role("button", name="Mesh").click()
    before = picture(page)
    page.keyboard.press("b")
    assert page.evaluate("document.body.dataset.background") == "grey"
    assert np.array_equal(picture(page), before)  # the background lies behind, not in the picture
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    page.mouse.down()
    page.mouse.move(box["x"] + 280, box["y"] + 150, steps=4)
    page.mouse.up()
    assert np.abs(picture(page) - before).mean() > 0.005
    page.keyboard.press("r")
    assert np.abs(picture(page) - before).mean() < 0.001


@pytest.mark.browser
def test_between_frames_it_draws_what_lies_between_only_if_asked(open_page: Open, folder: Path) -> None:
    page = open_page(find_shown(folder), address="#t=0&mode=splats")
    pictures = []
    for frame in (1.0, 2.0, 1.5):
        page.evaluate(f"viewer.seek({frame / FPS})")
        pictures.append(picture(page))
    first, second, between = pictures
    distances = [np.abs(between - other).mean() for other in (first, second)]
    assert min(distances) > 3e-3
    assert max(distances) < np.abs(first - second).mean()
    page.keyboard.press("i")
    assert np.abs(picture(page) - first).mean() < 1e-3


@pytest.mark.browser
def test_any_animated_glb_plays(open_page: Open, real_assets: Path) -> None:
    page = open_page(find_shown(real_assets / "KhronosFox.glb"), address="#t=0")
    assert page.locator("#clips option").all_inner_texts() == ["Survey", "Walk", "Run"]
    page.locator("#clips").select_option("1")
    first = picture(page)
    assert 0.02 < (first[..., 3] > 0.5).mean() < 0.5
    page.evaluate("viewer.seek(0.35)")
    assert np.abs(picture(page) - first).mean() > 1e-3


@pytest.mark.browser
def test_without_webgl_it_says_so(open_page: Open, folder: Path) -> None:
    none = "HTMLCanvasElement.prototype.getContext = () => null;"
    page = open_page(find_shown(folder), before=none)
    assert "no WebGL 2" in page.locator("#message").inner_text()
    assert page.locator("#controls").is_hidden()


@pytest.mark.browser
def test_a_broken_object_and_a_hostile_name_do_no_harm(open_page: Open, folder: Path) -> None:
    name = '</title><script>window.pwned=1</script><img src=x onerror="window.pwned=1">{{program}}'
    page = open_page(Shown(title=name, glb=(folder / "animated.glb").read_bytes()[:3000]))
    assert "cannot be shown" in page.locator("#message").inner_text()
    assert page.locator("h1").inner_text() == name
    assert page.evaluate("window.pwned") is None
