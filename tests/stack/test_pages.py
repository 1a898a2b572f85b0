"""The pages that people see, in a real browser: the form of a run, and a finished run.

With SCREENSHOTS set to a folder, the pictures of the guide are written there.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A browser of its own asks for nothing else in the network.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def page(workers):
    """Return a page on which somebody has logged in to Prefect."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        page.set_default_timeout(60_000)
        page.goto(f"{site(workers)}/deployments")
        if auth := workers.server.auth:
            page.locator("input[type=password]").fill(auth)
            page.keyboard.press("Enter")
            page.wait_for_url("**/deployments")
        yield page
        browser.close()


def site(workers):
    return workers.server.url.removesuffix("/api")


def newest(workers):
    body = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    return workers.server.read("POST", "/flow_runs/filter", body)[0]["id"]


def keep(page: Page, name: str, tmp_path: Path) -> None:
    """Take a picture, for the guide where it is asked for."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / name)
    assert (folder / name).stat().st_size > 10_000


def test_the_form_offers_lists_and_starts_a_run(page, workers, tmp_path):
    made = workers.server.read("GET", "/deployments/name/train/cpu")
    page.goto(f"{site(workers)}/deployments/deployment/{made['id']}/run")
    expect(page.get_by_text("Which images.")).to_be_visible()
    page.locator("button[modelvalue=digits]").focus()
    page.keyboard.press("ArrowDown")
    options = page.locator(".p-select-option")
    for name in ("fashion_mnist", "cifar10_images"):
        expect(options.get_by_text(name, exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    overrides = {"dense": {"epochs": 2}, "cnn": {"epochs": 2}}
    page.locator("textarea").first.fill(json.dumps(overrides))
    keep(page, "form.png", tmp_path)
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url("**/deployments/deployment/*?tab=Runs")
    run_id = newest(workers)
    done = workers.server.wait(run_id)
    assert done["state_type"] == "COMPLETED", done["state"]
    assert done["parameters"]["overrides"] == overrides
    assert {row["epochs"] for row in workers.rows(run_id)} == {2}

    page.set_viewport_size({"width": 1300, "height": 1000})
    page.goto(f"{site(workers)}/runs/flow-run/{run_id}")
    expect(page.get_by_text("Completed").first).to_be_visible()
    expect(page.get_by_text("digits: dense, cnn").first).to_be_visible()
    page.wait_for_timeout(3000)  # the graph is drawn on a canvas, which nothing tells the end of
    keep(page, "run.png", tmp_path)


def test_the_summary_links_to_mlflow_and_shows_the_models(page, workers, tmp_path):
    run_id = newest(workers)
    shown = workers.server.artifacts(run_id)
    page.set_viewport_size({"width": 1300, "height": 620})
    page.goto(f"{site(workers)}/artifacts/artifact/{shown['summary']['id']}")
    row = workers.rows(run_id)[0]
    link = page.get_by_role("link", name=row["run_id"][:8])
    expect(link).to_be_visible()
    assert f"/runs/{row['run_id']}" in str(link.get_attribute("href"))
    expect(page.get_by_role("link", name="Data Docs")).to_be_visible()
    keep(page, "summary.png", tmp_path)
    page.goto(f"{site(workers)}/artifacts/artifact/{shown['confusion-digits-cnn']['id']}")
    picture = page.locator("img[src^='data:image/png']").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
