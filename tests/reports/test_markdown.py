"""What people name their classes, files and reasons is text wherever a page shows it."""

import re
from collections.abc import Callable
from typing import Any

import mistune
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows import audit, promote
from flows.pages import view
from flows.pages.rows import ModelRow
from flows.search import findings
from flows.search.cells import Cell, Result, as_markdown, summarise
from flows.search.study import StudyRecord, TrialRecord
from pipeline.artifacts.models import ModelVersion, RunInfo
from pipeline.artifacts.validation import CheckResult, ValidationReport
from pipeline.production.decision import PromotionReport
from pipeline.registry.ledger import Discrepancy
from pipeline.reports.markdown import Markdown, escape, fenced, link, one_line, page, row
from tests.page import Page

ATTACKS = (
    "|[x](javascript:alert(1))",
    "](javascript:alert(1))",
    "[x]: javascript:alert(1)",
    "![x](data:text/html;base64,x)",
    "<javascript:alert(1)>",
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "http://a.example",
    "www.a.example",
    "ftp://a.example mailto:a@b.example a@b.example",
    *("`", "```", "~~~", "\n\n# a", "- ", "1. ", "1) ", "> ", "    a", "---", "===", "\\"),
    *("*", "_", "__a__", "a_b_", "**", "~~", "$", "|", "\t", "\r\n", ":", "!", "^", "==a=="),
    *("&lt;", "&#60;", "[^1]", "[^1]: x", "- [ ] a"),
)
texts = st.lists(st.sampled_from(ATTACKS) | st.text(max_size=6), max_size=6).map("".join)
EXTENSIONS = ["table", "strikethrough"]
PLUGINS = [*EXTENSIONS, "url", "footnotes", "task_lists", "mark", "math"]
RENDERERS: dict[str, Callable[[str], Any]] = {
    # Both let HTML through; the second makes links of addresses too.
    "markdown-it": MarkdownIt("commonmark", {"html": True}).enable(EXTENSIONS).render,
    "mistune": mistune.create_markdown(escape=False, plugins=PLUGINS),
}
# What GitHub's Markdown makes a link of without being told to.
LINKED_UNASKED = re.compile(r"www\.|https?://|ftp://|<|@", re.IGNORECASE)


def rendered(markdown, renderer="markdown-it"):
    return Page(RENDERERS[renderer](markdown))


RUN = RunInfo(
    run_id="0" * 32,
    experiment="tiny",
    dataset="tiny",
    model="dense",
    class_names=("a", "b"),
    image_shape=(8, 8, 1),
    data_md5="0" * 32,
    model_sha256="0" * 64,
    seed=0,
    device="cpu",
    parameters=1,
    epochs=1,
    training_seconds=1.0,
    val_accuracy=0.5,
    val_loss=1.0,
    git_commit=None,
    git_dirty=None,
)


def words(text):
    return " ".join(text.split())


def placed(shown):
    """Yield Markdown that has the text in every place where our pages have one."""
    table = row("name", "value"), Markdown("|---|---|"), row(shown, 1)
    yield "\n".join(["before", "", shown, "", "after"]), ["p"] * 3
    yield f"- {shown}\n- x", ["ul", "li", "li"]
    yield f"# {shown}", ["h1"]
    yield f"said: {shown}.", ["p"]
    yield "\n".join(table), ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]


@pytest.mark.parametrize("renderer", RENDERERS)
@settings(max_examples=40, deadline=None)
@given(text=texts)
@example(text=" ".join(ATTACKS))
def test_any_text_is_text_and_reads_back_unchanged(renderer, text):
    shown = escape(text)
    assert not LINKED_UNASKED.search(shown)
    assert "\n" not in shown
    for markdown, tags in placed(shown):
        made = rendered(markdown, renderer)
        assert (made.order, made.targets) == (tags if shown else made.order, [])
        assert words(one_line(text)) in words(made.text)


@pytest.mark.parametrize("renderer", RENDERERS)
@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_a_link_leads_where_we_say(renderer, text):
    address = "https://mlflow.example/#/models/a/versions/1"
    for made in (
        rendered(f"x {link(text, address)} y", renderer),
        rendered("\n".join([row("a"), "|---|", row(link(text, address))]), renderer),
    ):
        assert made.targets == [address]
        assert words(one_line(text)) in words(made.text)


@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_an_address_ends_where_the_link_does(text):
    made = rendered(f"x {link('page', f'http://a.example/{text}')} y")
    assert made.order == ["p", "a"]
    assert len(made.targets) == 1
    assert made.targets[0].startswith("http://a.example/")
    assert words(made.text) == "x page y"


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//a", "", None])
def test_an_address_of_another_scheme_is_no_link(address):
    assert rendered(link("page", address)).targets == []


@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_a_block_ends_where_the_text_does(text):
    made = rendered(f"before\n\n{fenced(text, 'diff')}\n\nafter")
    assert made.order == ["p", "pre", "code", "p"]


@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_our_own_pages_of_html_show_text(text):
    made = Page(page(text, f"# {escape(text)}"))
    plain = Page(page("x", "# x"))
    assert (made.order, made.targets) == (plain.order, plain.targets)


def summary(text):
    run = RUN.model_copy(update={"model": text, "dataset": text})
    done = ModelRow(
        **run.model_dump(include=set(ModelRow.model_fields)),
        accuracy=0.5,
        accuracy_low=0.4,
        accuracy_high=0.6,
        cached=False,
    )
    version = ModelVersion(
        name="tiny",
        version=1,
        model=text,
        run_id="0" * 32,
        aliases=("production",),
        val_accuracy=0.5,
        test_accuracy=0.5,
        model_sha256="0" * 64,
        shortfalls=(f"recall: {text} loses 0.1",),
    )
    view.show_summary(text, {"device": text}, [done], [run], version)


def validation(text):
    failed = CheckResult(
        check="readable",
        severity="error",
        passed=False,
        observed=1,
        limit=0,
        message=text,
        files=(text, "x"),
    )
    report = ValidationReport(dataset="tiny", raw_md5="0" * 32, results=(failed,))
    view.show_validation(report, link("Data Docs", "https://mlflow.example"))


def grid(text):
    cell = Cell("tiny", "dense", 0)
    results = [Result(cell, reason=text)]
    return as_markdown(summarise(results, 1), results, [text], lambda _: Markdown())


def search(text):
    trial = TrialRecord(number=0, params={text: text}, state="PRUNED", reason=text, run_id=text)
    record = StudyRecord(study="s", dataset="tiny", model="dense", recipe={}, trials=(trial,))
    lines = findings.page(record, {text: text}, 0.5, {})
    return "\n".join([*lines, findings.patch_page(f"+{text}")])


def decision(text):
    check = {"name": "classes", "value": text, "limit": text, "passed": False, "message": text}
    made = {"candidate": 7, "incumbent": 3, "test_md5": text, "checks": [check]}
    asked = {"name": "tiny", "version": 7, "action": "refused", "sequence": 1, "decision": made}
    return promote.page(PromotionReport.model_validate(asked))


def found(text):
    moved = Discrepancy(name=text, alias="production", holder=7, ledger=None, message=text)
    return audit.page([moved], [])


@pytest.mark.parametrize("make", [summary, validation, grid, search, decision, found])
@settings(max_examples=40, deadline=None)
@given(text=texts.filter(one_line))
@example(text=ATTACKS[0])
def test_pages_of_flows_have_the_links_and_elements_that_we_wrote(make, text):
    pages: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_UI_URL", "https://mlflow.example")
        patch.setattr(view, "create_markdown_artifact", lambda *page: pages.extend(page[::2]))
        pages += filter(None, [make(text)])
        number = len(pages)
        pages += filter(None, [make("x")])
    for renderer in RENDERERS:
        hostile = [rendered(each, renderer) for each in pages[:number]]
        plain = [rendered(each, renderer) for each in pages[number:]]
        assert [made.order for made in hostile] == [made.order for made in plain]
        for made in hostile:
            assert all(target.startswith("https://mlflow.example") for target in made.targets)


def test_everything_that_a_flow_shows_goes_through_one_place():
    from tests.conftest import ROOT

    makers = re.compile(r"create_(markdown|table|link|image)_artifact\(")
    users = [
        file.name for file in (ROOT / "flows").rglob("*.py") if makers.search(file.read_text())
    ]
    assert sorted(users) == ["chain.py", "view.py"]
