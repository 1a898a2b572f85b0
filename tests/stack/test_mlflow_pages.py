"""MLflow's pages in a real browser: they open for training, and miss nothing that is refused."""

import shutil

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from tests.stack.conftest import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def page(stack: Stack):
    """Return a page of the administrator's, on a server with a run."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    env = stack.env
    user, password = env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"]

    def make(path, **body):
        url = f"{env['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}"
        made = requests.post(url, json=body, auth=(user, password), timeout=60)
        assert made.ok, made.text
        return made.json()

    experiment = make("experiments/create", name="pages")["experiment_id"]
    run = make("runs/create", experiment_id=experiment, run_name="a run of pages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        context = browser.new_context(
            base_url=env["MLFLOW_TRACKING_URI"],
            http_credentials={"username": user, "password": password},
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"/#/experiments/{experiment}")
        yield page, f"/#/experiments/{experiment}", run["run"]["info"]["run_id"]
        browser.close()


def complaints(page):
    return page.locator("[class*=notification-notice]").count()


def test_an_experiment_opens_on_its_training_runs(page):
    page, *_ = page
    page.wait_for_url("**/runs?*workflowType=machine_learning*")
    expect(page.get_by_text("a run of pages")).to_be_visible()
    assert complaints(page) == 0
    expect(page.get_by_text("Welcome to MLflow Assistant")).to_have_count(0)


def test_who_switches_to_language_models_stays_there(page):
    page, *_ = page
    page.get_by_text("GenAI", exact=True).click()
    page.wait_for_url("**workflowType=genai**")
    page.goto("/#/experiments")
    page.reload()
    chosen = "localStorage.getItem('mlflow.workflowType_v1')"
    assert page.evaluate(chosen) == '"genai"'
    page.get_by_text("Model training", exact=True).click()
    assert page.evaluate(chosen) == '"machine_learning"'


@pytest.mark.parametrize("below", ["", "/artifacts", "/model-metrics"])
def test_a_run_is_shown(page, below):
    page, place, run = page
    page.goto(f"{place}/runs/{run}{below}")
    expect(page.get_by_text("a run of pages").first).to_be_visible()
    page.wait_for_timeout(2000)  # a complaint comes after what it is about
    assert complaints(page) == 0
