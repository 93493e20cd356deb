"""Takes the pictures of docs/app.md; into another folder every page, light and dark, at 1280 x 800.

    python docs/app_screenshots.py [FOLDER]

Needs chromium and playwright, as the browser tests do.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "app"), str(ROOT)]

import browsing  # noqa: E402
from zig.app import sample  # noqa: E402

from zig.training import demo  # noqa: E402, TID251 - for a real log

if TYPE_CHECKING:
    from playwright.sync_api import Page


IMAGES = ROOT / "docs" / "images"
IN_DOCS = ("graph_light", "graph_dark", "groups_light", "prune_light", "compare_dark", "training_light")


def take(page: Page, folder: Path, name: str) -> None:
    """One picture, once the page is at rest and nothing is pointed at."""
    if folder == IMAGES and name not in IN_DOCS:
        return
    page.mouse.move(2, 790)
    page.wait_for_timeout(1500)
    page.screenshot(path=folder / f"app_{name}.png")


def tour(page: Page, folder: Path, scheme: str) -> None:
    """All pages in turn."""
    page.get_by_text("Analysed in").wait_for(timeout=60_000)
    take(page, folder, f"model_{scheme}")
    browsing.go(page, "Graph")
    graph = browsing.canvas(page)
    page.mouse.click(*browsing.place(graph, next(k for k in browsing.keys(graph) if "stage1.0.conv2" in k)))
    take(page, folder, f"graph_{scheme}")
    page.get_by_label("Search the graph").fill("add")
    take(page, folder, f"search_{scheme}")
    page.get_by_label("Search the graph").press("Escape")
    page.wait_for_timeout(600)
    browsing.go(page, "Groups")
    browsing.canvas(page)
    take(page, folder, f"groups_{scheme}")
    page.get_by_role("tab", name="One by one").click()
    take(page, folder, f"units_{scheme}")
    browsing.go(page, "Prune")
    page.get_by_role("button", name="Prune and compress").click()
    page.get_by_text("groups removed. The outputs").wait_for(timeout=120_000)
    take(page, folder, f"prune_{scheme}")
    browsing.go(page, "Compare")
    page.get_by_role("button", name="Compare with the pruned model").click()
    before = browsing.canvas(page)
    browsing.canvas(page, 1)
    page.mouse.click(*browsing.place(before, next(k for k in browsing.keys(before) if "stage2.0.conv1" in k)))
    take(page, folder, f"compare_{scheme}")
    browsing.go(page, "Training")
    page.get_by_role("button", name="Open log").click()
    page.get_by_text("accuracy").first.wait_for(timeout=30_000)
    take(page, folder, f"training_{scheme}")
    browsing.go(page, "Graph")
    page.get_by_label("Colour by").click()
    page.get_by_role("option", name="parameters").click()
    take(page, folder, f"overlay_{scheme}")
    browsing.go(page, "Report")
    take(page, folder, f"report_{scheme}")


def empty(page: Page, folder: Path, scheme: str) -> None:
    """What the pages say where nothing is open."""
    for name in ("Model", "Graph", "Compare", "Training"):
        browsing.go(page, name)
        take(page, folder, f"empty_{name.lower()}_{scheme}")


def main(target: Path) -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as folder, browsing.browser() as browser:
        model = sample.write(Path(folder) / "sample.onnx")
        demo.run(Path(folder) / "run")  # a real training, with its log
        (Path(folder) / "nothing").mkdir()
        for start, visit in ((model, tour), (Path(folder) / "nothing", empty)):
            if visit is empty and target == IMAGES:
                continue
            with browsing.served(start) as address:
                for scheme in ("light", "dark"):
                    page = browser.new_page(viewport=browsing.SIZE, color_scheme=scheme)
                    page.goto(address)
                    visit(page, target, scheme)
                    page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
