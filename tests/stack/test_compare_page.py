"""The page of a comparison in a real browser, from disk and without a network.

With SCREENSHOTS set to a folder, the picture of the guide is written there.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import runner

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A browser of its own asks for nothing else in the network.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def compared(deterministic, tmp_path_factory):
    """Return the page of digits dense and cnn."""
    page = tmp_path_factory.mktemp("compared") / "page.html"
    models = ("models/digits/dense", "models/digits/cnn")
    runner(deterministic)("pipeline", "compare", *models, "--output", str(page), "--no-track")
    return page


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_whole_without_a_network(compared, browser, width, scheme):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(compared.as_uri())
    assert page.locator("h2").count() == 7
    assert page.evaluate(LOADED)
    assert page.evaluate(OVERFLOW) <= 0
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [compared.as_uri()]
    context.close()


def test_the_page_shows_what_it_says(compared, browser, tmp_path):
    page = browser.new_page(viewport={"width": 1280, "height": 1640})
    page.goto(compared.as_uri())
    shown = sum(int(n) for n in re.findall(r"(\d+) of \d+ shown", page.inner_text("main")))
    assert page.locator("figure img").count() == shown > 0
    assert page.locator("svg polyline").count() == 8
    assert page.locator("table.matrix tbody tr").count() == 10
    for role in ("img", "region"):
        for part in page.get_by_role(role).all():
            assert part.get_attribute("aria-label") or part.get_attribute("alt")
    keep(page, "compare.png", tmp_path)


def keep(page, name, tmp_path):
    """Take a picture, for the guide where it is asked for."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / name)
    assert (folder / name).stat().st_size > 10_000
