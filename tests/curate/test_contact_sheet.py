"""The contact sheet in a real browser, opened from disk as a person opens it."""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

from curate.contact_sheet import SheetClip, SheetReject, SheetRule, SheetStep, sprite, write_contact_sheet
from tests.chromium import launched

NUM_FRAMES = 8
HOSTILE = '</script><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><!--<script>\'"&amp;'
RULES = (
    SheetRule(reason="too_still", score="motion", op="<", threshold=0.005, low=0.0, high=0.1, help="Moves."),
    SheetRule(reason="rigid_only", score="rigid", op=">", threshold=0.95, low=0.0, high=1.0, help="Bends."),
)


def moving_square(*, num_views: int = 4, size_px: int = 32) -> list[npt.NDArray[np.uint8]]:
    views = np.zeros((num_views, NUM_FRAMES, size_px, size_px, 4), np.uint8)
    for view in range(num_views):
        for frame in range(NUM_FRAMES):
            views[view, frame, 8:24, frame * 2 : frame * 2 + 12] = (250, 60 * view, 30, 255)
    return list(views)


SPRITE = sprite(moving_square(), thumb_px=16)


def clip(title: str, scores: Mapping[str, float | None], **changes: Any) -> SheetClip:
    fields: dict[str, Any] = {
        "clip_id": f"id-{title}",
        "title": title,
        "animation": "Walk",
        "rig": "mv16",
        "licence": "CC0-1.0",
        "author": "Ada",
        "source_url": "https://example.org/asset",
        "scores": scores,
        "tags": (),
        "sprite": SPRITE,
        "num_views": 4,
        "num_frames": NUM_FRAMES,
        "fps": 8.0,
    }
    return SheetClip(**{**fields, **changes})


def menagerie() -> list[SheetClip]:
    """Two clips are kept, two stand still, one of them also is rigid; one has no motion score."""
    return [
        clip("Fox 2", {"motion": 0.03, "rigid": 0.2}, animation="Run", licence="CC-BY-4.0"),
        clip("Fox 10", {"motion": 0.06, "rigid": 0.4}, author="Grace", tags=("missing_texture",)),
        clip("Crab", {"motion": 0.001, "rigid": 0.1}),
        clip("Tank", {"motion": 0.002, "rigid": 0.99}, clip_id="0123abcd"),
        clip("Unmeasured", {"motion": None, "rigid": math.nan, "extra": 1.0}),
    ]


REJECTS = (
    SheetReject(name="a.glb", stage="ingest", reason="malformed", detail="bad offset", advice="validate it"),
    SheetReject(name="b.glb", stage="ingest", reason="malformed", detail="no header", advice="validate it"),
    SheetReject(name="c.glb", stage="render", reason="deadline", detail="120 s", advice="raise it"),
)
FUNNEL = (SheetStep(label="Inspected", num_in=8, num_out=5, losses={"malformed": 2, "deadline": 1}),)


def write(path: Path, clips: list[SheetClip], **changes: Any) -> Path:
    fields: dict[str, Any] = {"rules": RULES, "rejects": REJECTS, "funnel": FUNNEL}
    fields |= {"preset": "plain", "heading": "Menagerie"} | changes
    write_contact_sheet(path, clips=clips, **fields)
    return path


def test_a_sprite_has_a_column_a_view_and_a_row_a_frame() -> None:
    image = np.asarray(Image.open(io.BytesIO(SPRITE)).convert("RGBA"))
    assert image.shape == (NUM_FRAMES * 16, 4 * 16, 4)
    left_edges = [int(np.argmax(image[16 * frame + 8, :16, 3] > 128)) for frame in range(NUM_FRAMES)]
    assert left_edges == list(range(NUM_FRAMES))
    greens = [int(image[8, 16 * view + 3, 1]) for view in range(4)]
    assert greens == pytest.approx([0, 60, 120, 180], abs=25)


def test_a_sprite_takes_views_spread_over_the_ring() -> None:
    views = [np.full((1, 8, 8, 4), (0, 15 * view, 0, 255), np.uint8) for view in range(16)]
    image = np.asarray(Image.open(io.BytesIO(sprite(views, thumb_px=8))).convert("RGB"))
    assert image[4, 4::8, 1].tolist() == pytest.approx([0, 60, 120, 180], abs=8)


def test_hidden_colour_does_not_bleed_into_the_edge_of_a_sprite() -> None:
    view = np.zeros((1, 64, 64, 4), np.uint8)
    view[..., 1] = 255  # green wherever nothing is to be seen
    view[:, 10:50, 10:50] = (200, 0, 0, 255)
    image = np.asarray(Image.open(io.BytesIO(sprite([view], thumb_px=16))).convert("RGBA"))
    assert image[..., 1][image[..., 3] > 32].max() < 40
    assert 0 < image[2, 8, 3] < 255


def test_frames_that_are_not_square_are_centred() -> None:
    view = np.full((1, 16, 32, 4), 255, np.uint8)
    alpha = np.asarray(Image.open(io.BytesIO(sprite([view], thumb_px=32))).convert("RGBA"))[..., 3]
    assert alpha[8:24].min() == 255
    assert alpha[:8].max() == alpha[24:].max() == 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "at least one view"),
        ([(0, 8, 8, 4)], "do not fit a WebP image"),
        ([(300, 8, 8, 4)], "do not fit a WebP image"),
        ([(2, 8, 8, 3)], "of one length"),
        ([(2, 8, 8, 4), (3, 8, 8, 4)], "of one length"),
    ],
)
def test_a_sprite_that_cannot_be_made_is_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sprite([np.zeros(shape, np.uint8) for shape in shapes])


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="fps"):
        clip("Fox", {}, fps=0.0)
    with pytest.raises(ValueError, match="low < high"):
        SheetRule(reason="r", score="s", op="<", threshold=0.5, low=1.0, high=1.0, help="")
    with pytest.raises(ValueError, match="op"):
        SheetRule(reason="r", score="s", op="=", threshold=0.5, low=0.0, high=1.0, help="")  # type: ignore[arg-type]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, menagerie()).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_failure_half_way_leaves_the_page_that_was_there(tmp_path: Path) -> None:
    page = write(tmp_path / "sheet.html", menagerie())
    before = page.read_bytes()

    def breaking() -> Iterator[SheetClip]:
        yield menagerie()[0]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        write_contact_sheet(page, clips=breaking(), rules=(), rejects=(), funnel=(), preset="p", heading="h")
    assert page.read_bytes() == before
    assert list(tmp_path.iterdir()) == [page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched("--disable-gpu", "--disable-sync") as browser:
        yield browser


Open = Callable[..., Any]


@pytest.fixture
def open_sheet(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a sheet of the given clips; by the end it must not have complained or asked for a thing."""
    complaints: list[str] = []
    requests: list[str] = []
    contexts = []

    def open_one(clips: list[SheetClip], *, address: str = "", **changes: Any) -> Any:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(write(tmp_path / "sheet.html", clips, **changes).as_uri() + address)
        page.wait_for_selector("#grid[style], .reject")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []


def titles(page: Any) -> list[str]:
    """The titles of the cards in the order in which they are laid out."""
    settle(page)
    cards: list[list[Any]] = page.evaluate(
        "[...document.querySelectorAll('.card')]"
        ".map(card => [+card.ariaPosInSet, card.querySelector('.card-title').textContent])"
    )
    return [title for _, title in sorted(cards)]


def wait_until(page: Any, expression: str) -> None:
    """Playwright's own waiting evaluates strings in the page, which the page's security policy forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {expression}")


def settle(page: Any) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def badge(page: Any, title: str) -> str:
    settle(page)
    card = page.locator(".card", has=page.locator(".card-title", has_text=re.compile(f"^{re.escape(title)}$")))
    return str(card.locator(".card-verdict").inner_text()).split()[0]


def table(page: Any) -> list[list[str]]:
    """What the open groups of the rejects list."""
    settle(page)
    rows: list[list[str]] = page.evaluate(
        "[...document.querySelectorAll('.reject[open] tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def chip_count(page: Any, group: str, label: str) -> int:
    settle(page)
    chip = page.locator(f"#chips-{group} .chip", has=page.get_by_text(label, exact=True))
    return int(chip.locator(".num").inner_text())


def background_row(page: Any, selector: str) -> str:
    return str(page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).backgroundPositionY"))


@pytest.mark.browser
def test_it_opens_from_disk_and_shows_every_clip(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    assert titles(page) == ["Fox 2", "Fox 10", "Crab", "Tank", "Unmeasured"]
    assert page.locator("#num-kept").inner_text() == "3"
    assert page.locator("#num-dropped").inner_text() == "2"
    assert page.locator("h1").inner_text() == "Menagerie"
    assert page.title().startswith("Menagerie")
    assert badge(page, "Fox 2") == "kept"
    assert badge(page, "Crab") == "too_still"
    shown = page.evaluate(
        """async () => {
            const image = new Image();
            image.src = document.querySelector(".player").style.backgroundImage.slice(5, -2);
            await image.decode();
            return [image.naturalWidth, image.naturalHeight];
        }"""
    )
    assert shown == [4 * 16, NUM_FRAMES * 16]


@pytest.mark.browser
def test_all_clips_play_in_step_until_the_space_bar_stops_them(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    players = "[...document.querySelectorAll('.card .player')]"
    rows = f"{players}.map(player => getComputedStyle(player).backgroundPositionY)"
    seen = set()
    for _ in range(12):
        now = page.evaluate(rows)
        assert len(set(now)) == 1, "players out of step"
        seen.add(now[0])
        page.wait_for_timeout(100)
    assert len(seen) >= 4
    assert {round(float(row[:-1]) / 100 * (NUM_FRAMES - 1), 3) for row in seen} <= set(range(NUM_FRAMES))
    page.keyboard.press(" ")
    settle(page)
    held = page.evaluate(rows)
    page.wait_for_timeout(400)
    assert page.evaluate(rows) == held
    page.keyboard.press(" ")
    page.wait_for_timeout(400)
    assert page.evaluate(rows) != held


@pytest.mark.browser
def test_a_slider_moves_clips_from_kept_to_dropped_with_the_reason(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.get_by_label("too_still: threshold of motion", exact=True).fill("400")  # of 1000, so 0.04
    assert badge(page, "Fox 2") == "too_still"
    assert badge(page, "Fox 10") == "kept"
    assert badge(page, "Unmeasured") == "kept"
    assert page.locator("#num-kept").inner_text() == "2"
    assert page.locator(".rule .drops").first.inner_text() == "drops 3 · 60.0 %"
    assert page.get_by_label("too_still: threshold of motion as a number").input_value() == "0.04"
    assert chip_count(page, "reason", "too_still") == 3
    assert chip_count(page, "show", "Changed") == 1
    assert "\N{MINUS SIGN}1" in page.locator("#num-changed").inner_text()
    page.get_by_role("button", name="Back to preset").click()
    assert badge(page, "Fox 2") == "kept"
    assert chip_count(page, "show", "Changed") == 0


@pytest.mark.browser
def test_the_first_failing_rule_gives_the_reason_and_all_are_told(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    assert badge(page, "Tank") == "too_still"
    assert (chip_count(page, "reason", "too_still"), chip_count(page, "reason", "rigid_only")) == (2, 0)
    told = page.locator(".card", has_text="Tank").locator("button").get_attribute("title")
    assert "too_still: motion 0.002 < 0.005" in told
    assert "rigid_only: rigid 0.99 > 0.95" in told
    page.locator(".rule", has_text="too_still").get_by_role("checkbox").uncheck()
    assert badge(page, "Tank") == "rigid_only"
    assert (chip_count(page, "reason", "too_still"), chip_count(page, "reason", "rigid_only")) == (0, 1)
    assert badge(page, "Crab") == "kept"


@pytest.mark.browser
def test_sorting_follows_the_numbers_and_puts_missing_scores_last(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.select_option("#sort", "title")
    assert titles(page) == ["Crab", "Fox 2", "Fox 10", "Tank", "Unmeasured"]
    page.select_option("#sort", "score.motion")
    assert titles(page) == ["Crab", "Tank", "Fox 2", "Fox 10", "Unmeasured"]
    page.locator("#sort-direction").click()
    assert titles(page) == ["Fox 10", "Fox 2", "Tank", "Crab", "Unmeasured"]
    page.locator(".rule", has_text="too_still").get_by_role("button", name="Borderline first").click()
    assert titles(page) == ["Tank", "Crab", "Fox 2", "Fox 10", "Unmeasured"]


@pytest.mark.browser
def test_search_and_chips_narrow_the_choice(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.keyboard.press("/")
    page.keyboard.type("FOX grace")
    assert titles(page) == ["Fox 10"]
    page.get_by_role("button", name="Clear filters").click()
    for group, label, expected in (
        ("show", "Dropped", ["Crab", "Tank"]),
        ("reason", "too_still", ["Crab", "Tank"]),
        ("licence", "CC-BY-4.0", ["Fox 2"]),
        ("tag", "missing_texture", ["Fox 10"]),
    ):
        page.locator(f"#chips-{group}").get_by_text(label, exact=True).click()
        assert titles(page) == expected
        page.get_by_role("button", name="Clear filters").click()
    page.locator("#chips-show").get_by_text("Changed", exact=True).click()
    assert titles(page) == []
    assert page.get_by_text("No clip matches.").is_visible()
    page.get_by_label("too_still: threshold of motion", exact=True).fill("400")
    assert titles(page) == ["Fox 2"]


@pytest.mark.browser
def test_a_clip_opens_with_a_scrubber_scores_and_source(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.locator(".card", has_text="Tank").click()
    dialog = page.locator("#detail")
    assert dialog.get_by_role("heading").inner_text() == "Tank"
    assert [each.inner_text() for each in dialog.locator("#detail-verdict .badge").all()] == [
        "too_still",
        "rigid_only",
    ]
    page.locator("#scrubber").fill("3")
    settle(page)
    assert page.locator("#frame").inner_text() == f"frame 4 of {NUM_FRAMES}"
    row = float(background_row(page, "#detail .player")[:-1]) / 100 * (NUM_FRAMES - 1)
    assert row == pytest.approx(3.0, abs=1e-3)
    page.keyboard.press(".")
    settle(page)
    assert page.locator("#frame").inner_text() == f"frame 5 of {NUM_FRAMES}"
    page.locator("#detail .swatch.checker").click()
    settle(page)
    assert page.evaluate("document.documentElement.dataset.bg") == "checker"
    assert dialog.get_by_role("link").get_attribute("href") == "https://example.org/asset"
    dialog.get_by_role("button", name="0123abcd").click()
    wait_until(page, "document.querySelector('#toast').textContent === 'Copied the id'")
    assert page.evaluate("navigator.clipboard.readText()") == "0123abcd"
    assert "0.99" in dialog.locator("tr", has_text="rigid").inner_text()
    dialog.get_by_role("button", name="Next clip").click()
    assert dialog.get_by_role("heading").inner_text() == "Unmeasured"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.browser
def test_clips_of_other_shapes_stand_beside_each_other(open_sheet: Open) -> None:
    still = sprite([view[:1] for view in moving_square(num_views=1)], thumb_px=16)
    short = sprite([view[:4] for view in moving_square(num_views=2)], thumb_px=16)
    page = open_sheet(
        [
            clip("Still", {}, sprite=still, num_views=1, num_frames=1),
            clip("Short", {}, sprite=short, num_views=2, num_frames=4),
            clip("Plain", {}),
        ]
    )
    settle(page)
    sizes = page.evaluate(
        "[...document.querySelectorAll('.card .player')].map(player => player.clientWidth / player.clientHeight)"
    )
    assert sizes == [1.0, 2.0, 4.0]
    page.locator(".card", has_text="Still").click()
    assert page.locator("#frame").inner_text() == "frame 1 of 1"


@pytest.mark.browser
def test_the_keyboard_walks_opens_and_closes(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    settle(page)
    focused = "document.activeElement.querySelector('.card-title')?.textContent"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "Fox 2"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "Fox 10"
    page.keyboard.press("End")
    assert page.evaluate(focused) == "Unmeasured"
    page.keyboard.press(" ")
    assert not page.locator("#detail").is_visible()
    page.keyboard.press("Enter")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#detail-title").inner_text() == "Tank"
    page.keyboard.press("Escape")
    wait_until(page, f"{focused} === 'Tank'")


@pytest.mark.browser
def test_the_copied_yaml_is_the_preset_format_and_exact(open_sheet: Open) -> None:
    odd = SheetRule(reason="on", score="a: b", op=">", threshold=1e-7, low=0.0, high=1.0, help='\x85 "é": {#}\n\u2028')
    page = open_sheet(menagerie(), rules=(*RULES, odd))
    page.get_by_label("too_still: threshold of motion as a number").fill("0.0123")
    page.locator(".rule", has_text="rigid_only").get_by_role("checkbox").uncheck()
    settle(page)
    page.get_by_role("button", name="Copy thresholds as YAML").click()
    wait_until(page, "document.querySelector('#toast').textContent === 'Copied the thresholds'")
    text = page.evaluate("navigator.clipboard.readText()")
    moves = {"reason": "too_still", "score": "motion", "drop_if": "<", "threshold": 0.0123}
    oddly = {"reason": "on", "score": "a: b", "drop_if": ">", "threshold": 1e-7}
    assert yaml.safe_load(text) == {
        "name": "plain-adjusted",
        "description": "Thresholds from the contact sheet; they keep 3 of its 5 clips.",
        "rules": [
            {**moves, "low": 0, "high": 0.1, "help": "Moves."},
            {**oddly, "low": 0, "high": 1, "help": odd.help},
        ],
    }
    assert '  - {reason: too_still, score: motion, drop_if: "<", threshold: 0.0123, ' in text
    assert '  # off: - {reason: rigid_only, score: rigid, drop_if: ">", threshold: 0.95, ' in text


@pytest.mark.browser
def test_the_address_brings_back_what_was_seen(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.get_by_label("too_still: threshold of motion as a number").fill("0.04")
    page.locator(".rule", has_text="rigid_only").get_by_role("checkbox").uncheck()
    page.select_option("#sort", "score.motion")
    page.locator("#chips-show").get_by_text("Dropped", exact=True).click()
    page.fill("#search", "fox")
    wait_until(page, "location.hash.includes('q=fox')")
    again = open_sheet(menagerie(), address="#" + page.url.partition("#")[2])
    assert titles(again) == titles(page) == ["Fox 2"]
    assert again.get_by_label("too_still: threshold of motion as a number").input_value() == "0.04"
    assert not again.locator(".rule", has_text="rigid_only").get_by_role("checkbox").is_checked()
    assert again.locator("#sort").input_value() == "score.motion"
    opened = open_sheet(menagerie(), address="#clip=0123abcd")
    assert opened.locator("#detail-title").inner_text() == "Tank"


@pytest.mark.browser
def test_what_never_rendered_is_listed_by_reason(open_sheet: Open) -> None:
    page = open_sheet(menagerie())
    page.get_by_role("tab", name="Never rendered 3").click()
    groups = page.locator(".reject")
    groups.first.wait_for()
    assert [group.locator("summary .number").inner_text() for group in groups.all()] == ["2", "1"]
    assert groups.first.locator("summary").inner_text().split("\n")[0] == "malformed"
    assert table(page) == [["a.glb", "ingest", "bad offset"], ["b.glb", "ingest", "no header"]]
    page.locator("#funnel").get_by_role("button", name="deadline").click()
    assert table(page) == [["c.glb", "render", "120 s"]]
    page.fill("#search", "header")
    assert table(page) == [["b.glb", "ingest", "no header"]]


@pytest.mark.browser
def test_hostile_text_stays_text(open_sheet: Open) -> None:
    backwards, long = "\u202egnp.exe\u202d שלום", "long" * 2000
    hostile = clip(
        HOSTILE,
        {"motion": 0.03, HOSTILE: 0.5},
        clip_id=HOSTILE,
        animation=backwards,
        rig=HOSTILE,
        licence=HOSTILE,
        author=long,
        source_url="javascript:window.pwned=1",
        tags=(HOSTILE, "\ud800 lone surrogate"),
    )
    rule = SheetRule(reason=HOSTILE, score=HOSTILE, op="<", threshold=0.1, low=0.0, high=1.0, help=HOSTILE)
    reject = SheetReject(name=HOSTILE, stage=HOSTILE, reason=HOSTILE, detail=long, advice=HOSTILE)
    step = SheetStep(label=HOSTILE, num_in=2, num_out=1, losses={HOSTILE: 1})
    page = open_sheet(
        [hostile, clip(long, {})],
        rules=(rule, *RULES),
        rejects=(reject,),
        funnel=(step,),
        preset=HOSTILE,
        heading=HOSTILE + "{{data}}\ud800",
    )
    assert titles(page) == [HOSTILE, long]
    assert page.locator("#sidebar").evaluate("sidebar => sidebar.scrollWidth <= sidebar.clientWidth")
    assert page.locator(".rule .reason").first.inner_text() == HOSTILE
    boxes = page.evaluate("[...document.querySelectorAll('.card')].map(card => card.scrollWidth <= card.clientWidth)")
    assert boxes == [True, True]
    page.locator(".card").first.click()
    dialog = page.locator("#detail")
    assert dialog.get_by_role("heading").inner_text() == HOSTILE
    assert dialog.get_by_role("link").count() == 0
    assert dialog.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.keyboard.press("Escape")
    page.get_by_role("tab").nth(1).click()
    assert page.locator(".reject tbody tr").first.inner_text().startswith(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("img").count() == 0
    assert page.evaluate("window.pwned") is None


@pytest.mark.browser
def test_the_security_policy_admits_no_other_script(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(write(tmp_path / "sheet.html", menagerie()).as_uri())
    page.wait_for_selector(".card")
    blocked = page.evaluate(
        """async () => {
            const blocked = [];
            const note = (violation) => blocked.push(violation.effectiveDirective);
            document.addEventListener("securitypolicyviolation", note);
            const attempt = async (work) => { try { await work(); } catch { /* some throw as well */ } };
            await attempt(() => { document.body.innerHTML = "<img src=x onerror='window.pwned=1'>"; });
            await attempt(() => document.body.setAttribute("onclick", "window.pwned=1"));
            document.body.click();
            await attempt(() => fetch("https://example.org/"));
            await attempt(() => new Promise((done) => {
                const image = new Image();
                image.onload = image.onerror = done;
                image.src = "https://example.org/x.png";
            }));
            await new Promise((done) => setTimeout(done, 200));
            return blocked;
        }"""
    )
    assert {"connect-src", "img-src", "require-trusted-types-for"} <= set(blocked)
    assert page.evaluate("window.pwned") is None
    page.close()


@pytest.mark.browser
def test_two_thousand_clips_need_few_cards(open_sheet: Open) -> None:
    clips = [clip(f"Clip {index:04d}", {"motion": index / 20_000}) for index in range(2000)]
    page = open_sheet(clips)
    assert titles(page)[0] == "Clip 0000"
    assert page.locator(".card").count() < 100
    page.evaluate("document.querySelector('#scroller').scrollTop = 1e9")
    wait_until(page, "[...document.querySelectorAll('.card-title')].some(t => t.textContent === 'Clip 1999')")
    last = page.locator(".card", has_text="Clip 1999")
    assert last.bounding_box()["y"] + last.bounding_box()["height"] <= 900
    assert page.locator(".card").count() < 100
    assert page.locator("#num-dropped").inner_text() == "100"
    page.get_by_label("too_still: threshold of motion", exact=True).fill("500")
    settle(page)
    assert page.locator("#num-dropped").inner_text() == "1,000"
    page.locator("#chips-show").get_by_text("Kept", exact=True).click()
    assert titles(page)[0] == "Clip 1000"
