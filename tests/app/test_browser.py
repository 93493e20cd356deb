"""The app in a real browser: what users do, with no error in the console and no request to elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("streamlit", reason="the app needs streamlit: pip install 'onnx-zig[app]'")
pytest.importorskip("playwright", reason="browser tests need playwright: pip install 'onnx-zig[browser]'")

import browsing
from browsing import canvas, go, keys, place, state

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest_plugins = ("app_models",)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browsing.program() is None, reason="there is no chromium: apt-get install chromium"),
]
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def address(sample_path: Path) -> Iterator[str]:
    with browsing.served(sample_path) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.browser() as found:
        yield found


@pytest.fixture
def look(browser: Browser, address: str) -> Iterator[Open]:
    """A browser tab of its own; at the end it must have seen no error and asked no other machine."""
    complaints: list[str] = []
    contexts = []

    def start(scheme: str = "light") -> Page:
        context = browser.new_context(viewport=browsing.SIZE, color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if _elsewhere(request.url, address) else None)
        page.goto(address)
        page.get_by_text("Analysed in").wait_for(timeout=60_000)
        return page

    yield start
    for context in contexts:
        context.close()
    assert complaints == []


def _elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def test_a_click_fills_the_panel_and_keeps_place_and_zoom(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    key = next(key for key in keys(graph) if "stage1.1.conv1" in key)
    graph.evaluate("c => c.view.zoomTo(0.8, 300, 200)")
    x, y = place(graph, key)
    page.wait_for_timeout(200)
    before = state(graph)
    page.mouse.click(x, y)
    page.get_by_role("button", name="writes g2").first.wait_for(timeout=10_000)
    after = state(graph)
    assert after["selected"] == key
    assert (before["zoom"], before["x"], before["y"]) == (after["zoom"], after["x"], after["y"])


def test_wheel_and_drag_move_the_view(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    before = state(graph)
    page.mouse.move(400, 400)
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(200)
    assert float(state(graph)["zoom"]) > float(before["zoom"])
    before = state(graph)
    page.mouse.move(200, 300)
    page.mouse.down()
    page.mouse.move(260, 360, steps=4)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert float(state(graph)["x"]) - float(before["x"]) == pytest.approx(60, abs=1)
    assert state(graph)["selected"] == ""


def test_the_keyboard_follows_edges_opens_and_closes(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    graph.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("c => c.dataset.selected.includes('stem')", arg=graph.element_handle())
    page.get_by_role("button", name="writes g0").first.wait_for(timeout=10_000)
    boxes = int(state(graph)["boxes"])
    page.keyboard.press("Backspace")  # closes the stem
    page.wait_for_function("([c, n]) => Number(c.dataset.boxes) < n", arg=[graph.element_handle(), boxes])
    graph.evaluate("c => c.view.select(c.view.number.get('/stem'))")
    page.wait_for_function("c => c.dataset.selected === '/stem'", arg=graph.element_handle())
    page.keyboard.press("Enter")
    page.wait_for_function("([c, n]) => Number(c.dataset.boxes) === n", arg=[graph.element_handle(), boxes])
    page.keyboard.press("f")
    page.wait_for_timeout(200)
    assert float(state(graph)["zoom"]) < 0.5


def test_a_double_click_opens_a_module_in_its_place(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    page.get_by_label("Close all modules").click()
    page.wait_for_function("c => Number(c.dataset.boxes) < 12", arg=graph.element_handle())
    x, y = place(graph, "/stage2")
    page.mouse.dblclick(x, y)
    page.wait_for_function("c => Number(c.dataset.boxes) > 8", arg=graph.element_handle())
    page.wait_for_timeout(300)
    after = graph.evaluate("c => c.view.locate('/stage2')")
    assert after[0] == pytest.approx(x, abs=3)
    assert after[1] == pytest.approx(y - 24 + 13, abs=6)  # the frame's title stands where the box's top was


def test_search_outlines_and_reveals(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    page.get_by_label("Close all modules").click()
    page.wait_for_function("c => Number(c.dataset.boxes) < 12", arg=graph.element_handle())
    graph.focus()
    page.keyboard.press("/")
    page.keyboard.type("stage3.1.conv2")
    page.get_by_text("1 found").wait_for(timeout=10_000)
    assert graph.evaluate("c => [...c.view.marked].map(i => c.view.s.key[i])") == ["/stage3"]
    page.keyboard.press("Enter")
    page.wait_for_function("c => c.dataset.selected.includes('stage3.1.conv2')", arg=graph.element_handle())
    page.keyboard.press("Escape")
    page.wait_for_function("c => c.view.marked.size === 0", arg=graph.element_handle())


def test_selecting_a_group_fades_the_rest(look: Open) -> None:
    page = look()
    go(page, "Graph")
    graph = canvas(page)
    x, y = place(graph, next(key for key in keys(graph) if "stage1.1.conv1" in key))
    page.mouse.click(x, y)
    page.get_by_role("button", name="writes g2").first.click()
    page.wait_for_function("c => c.view.data.focus.length === 1", arg=graph.element_handle())
    shown = graph.evaluate("c => c.view.s.key.filter((_, i) => c.view.s.kind[i] !== 'frame' && !c.view.isFaded(i))")
    assert {key.rsplit("/", 2)[1] for key in shown} == {"stage1.1.conv1", "stage1.1.conv2"}


def test_pictures_are_saved_whole(look: Open, tmp_path: Path) -> None:
    page = look()
    go(page, "Graph")
    canvas(page)
    for label, kind in (("Save the whole picture as SVG", "svg"), ("Save the whole picture as PNG", "png")):
        with page.expect_download() as started:
            page.get_by_label(label).click()
        target = tmp_path / f"sample.{kind}"
        started.value.save_as(target)
        assert started.value.suggested_filename == target.name
        content = target.read_bytes()
        assert content.startswith(b"<svg" if kind == "svg" else b"\x89PNG")
    text = (tmp_path / "sample.svg").read_text()
    assert "stage3" in text
    assert "Conv 3×3" in text
    assert text.count("<rect") > 60


def test_prune_download_compare_report(look: Open, tmp_path: Path) -> None:
    page = look()
    go(page, "Prune")
    page.get_by_role("button", name="Prune and compress").click()
    page.get_by_text("groups removed. The outputs").wait_for(timeout=60_000)
    with page.expect_download() as started:
        page.get_by_role("button", name="Save the small model").click()
    started.value.save_as(tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx").stat().st_size > 10_000
    go(page, "Compare")
    page.get_by_role("button", name="Compare with the pruned model").click()
    before, after = canvas(page, 0), canvas(page, 1)
    key = next(key for key in keys(before) if "stage2.0.conv1" in key)
    page.mouse.click(*place(before, key))
    page.wait_for_function("([c, key]) => c.dataset.selected === key", arg=[after.element_handle(), key])
    go(page, "Report")
    with page.expect_download() as started:
        page.get_by_role("button", name="Save as JSON").click()
    started.value.save_as(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["compress"]["comparison"]["equal"]


def test_uploads_open_and_others_are_refused(look: Open, sample_path: Path, tmp_path: Path) -> None:
    page = look()
    page.get_by_text("Open a model").click()
    page.get_by_role("tab", name="Upload").click()
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(sample_path.read_bytes())
    page.locator("input[type=file]").set_input_files(str(copy))
    page.get_by_role("button", name="Open upload").click()
    page.get_by_role("heading", name="copy.onnx").wait_for(timeout=30_000)


def test_a_path_outside_the_folder_is_refused(look: Open) -> None:
    page = look()
    page.get_by_text("Open a model").click()
    page.get_by_placeholder("Choose, or type a path").fill("../../etc/passwd")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Open model").click()
    page.get_by_text("lies outside").wait_for(timeout=10_000)


def test_two_tabs_have_models_of_their_own(look: Open) -> None:
    one, other = look(), look()
    one.get_by_text("Open a model").click()
    one.get_by_role("tab", name="Sample").click()
    one.get_by_role("button", name="Open the sample").click()
    one.wait_for_timeout(1500)
    go(one, "Graph")
    graph = canvas(one)
    one.mouse.click(*place(graph, next(key for key in keys(graph) if "stem" in key and key.startswith("n:"))))
    one.get_by_role("button", name="writes g0").first.wait_for(timeout=10_000)
    go(other, "Graph")
    assert state(canvas(other))["selected"] == ""


def test_dark_mode_is_dark(look: Open) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = look(scheme)
        go(page, "Graph")
        canvas(page)
        back = page.locator(".zig").evaluate("e => getComputedStyle(e).backgroundColor")
        colours[scheme] = sum(int(part) for part in back.strip("rgba()").split(",")[:3])
    assert colours["dark"] < 150
    assert colours["light"] > 600
