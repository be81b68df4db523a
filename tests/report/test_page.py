"""Pages, tables and result folders: complete, self-contained, and safe whatever a model or a study wrote."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import fake_report
import matplotlib
import numpy as np
import pytest

from gentax.core import Outcome, Task, UsageError
from gentax.core.console import visible
from gentax.core.episode import read_episodes
from gentax.metrics.claim_testing import Claim, assess
from gentax.metrics.gate import Gate, PercentLimit, PointsLimit
from gentax.metrics.tax import drop, tax_report
from gentax.report import ArmResult, LearningCurve, Report, random_success
from gentax.report.exports import tables
from gentax.report.page import check_report_folder, render, write_folder, write_report
from gentax.report.text import lead, percent, summary

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}
NASTY = "<script>alert(1)</script></style></pre>\"'><img src=x onerror=alert(1)>{{ 7*7 }}&amp;$\\frac{1}{0}$\x00\u202e"


class Tree(HTMLParser):
    """What a browser would find: tags, attributes, text, and whether every tag is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.stack, self.wrong = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_with_episodes(report: Report, folder: Path) -> str:
    """Write a report without the pictures beside the page, which have a test of their own; return the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gentax.report.page.save", lambda *_: None)
        write_report(report, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A whole report."""
    return page_with_episodes(fake_report.report(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page_of_arms():
    return render(fake_report.arms())


def test_every_section_is_rendered(page):
    text = Tree(page).text
    for heading in (
        "Summary",
        "Success on every domain",
        "What it cost",
        "Learning and forgetting",
        "The domains",
        "How lost tasks fail",
        "Episodes",
        "How to reproduce",
    ):
        assert heading in text
    assert "Cochran & Cox 1950" in text  # the method of `statistics.scores.margin`
    result = fake_report.results()[3]
    assert f"{result.tax.after['alfworld'].value:.1f}" in text
    assert f"{result.tax.drop['alfworld'].low:.1f} to {result.tax.drop['alfworld'].high:.1f}" in text
    assert f"{result.tax.tax.low:.2f} to {result.tax.tax.high:.2f}" in text
    assert "gentax study run studies/four.yaml" in text
    assert "2 h 3 min" in text
    assert "play.context window(2)" in text


def test_matrix_marks_undecided_cells_and_the_source(page):
    assert len(re.findall(r'<td class="c-\w+ home[^"]*">', page)) == len(fake_report.AFTER)
    drops = [e for result in fake_report.results() for e in result.tax.drop.values()]
    undecided = sum(e.contains(0) and e.value != 0 for e in drops)
    assert 0 < undecided < len(drops)
    cells = page.split('<table class="heat">')[1].split("</table>")[0]
    assert cells.count("▽") + cells.count("△") == undecided
    assert cells.count("▼") + cells.count("▲") == len(drops) - undecided + len(fake_report.AFTER)


def test_the_page_is_self_contained_and_reproducible(page, page_of_arms):
    before = dict(matplotlib.rcParams)
    assert render(fake_report.arms()) == page_of_arms
    assert dict(matplotlib.rcParams) == before
    tree = Tree(page)
    assert tree.wrong == []
    assert tree.stack == []
    assert not {"link", "img", "iframe", "object", "form"} & set(tree.tags)
    for tag, name, value in tree.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action"):
            own = re.fullmatch(r"figures/[\w-]+\.(svg|pdf)", value)
            assert own or value.startswith(("#", "data:text/csv")), (tag, name, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page
    ids = [value for _, name, value in tree.attributes if name == "id"]
    assert {v[1:] for _, n, v in tree.attributes if n in ("href", "xlink:href") and v[0] == "#"} <= set(ids)
    assert all(ids.count(name) == 1 for name in ("matrix", "costs", "learning", "axes", "episodes", "made"))


def test_the_only_script_is_allowed_by_its_hash(page):
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' 'strict-dynamic'\"" in page
    assert "innerHTML" not in script
    assert "<script" not in render(fake_report.short())


@pytest.mark.slow
def test_every_plot_is_a_file_beside_the_page(tmp_path):
    write_report(fake_report.short(curves=[fake_report.curve("sokoban", "plain", seed=0, steps=5)]), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    names = {f"{name}.{end}" for name in ("tax", "matrix", "learning-1") for end in ("svg", "pdf")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    for path in (tmp_path / "figures").iterdir():
        assert path.read_bytes().startswith(b"%PDF" if path.suffix == ".pdf" else b"<?xml")
        assert f'href="figures/{path.name}"' in page


def test_every_control_can_be_reached_by_keyboard(page):
    tree = Tree(page)
    scrolled = re.findall(r'<div class="wide"([^>]*)>', page)
    assert scrolled
    assert all('tabindex="0"' in pairs and "aria-label" in pairs for pairs in scrolled)
    assert not {value for _, name, value in tree.attributes if name == "tabindex"} - {"0"}
    assert ("a", "class", "skip") in tree.attributes
    assert "outline:none" not in page.replace(" ", "")
    assert ":focus-visible{outline:2px solid" in page


def test_the_study_file_is_quoted_and_can_be_saved():
    text = "# mine\nname: two <b>\n"
    page = render(fake_report.short(study_file=("work/two.yaml", text), command="gentax study run work/two.yaml"))
    assert "gentax study run work/two.yaml" in Tree(page).text
    assert "# mine name: two <b>" in Tree(page).text
    link = page.split('download="two.yaml" href="data:text/plain;charset=utf-8,')[1].split('"')[0]
    assert unquote(link) == text


def test_forecasts_stand_beside_what_was_measured(page_of_arms):
    text = Tree(page_of_arms).text
    (check,) = fake_report.arms().forecasts
    assert not check.held
    assert replace(check, forecast=check.measured).held
    assert "four sources." in text
    assert "Forecast and measured" in text


def test_untrusted_text_is_escaped_and_made_visible(tmp_path):
    nasty = replace(fake_report.episodes()[0].read()[0], task=Task(NASTY.replace("/", ""), "a", "b", 1))
    ones = np.repeat([1.0, 0.0], 32)
    result = ArmResult(tax_report(NASTY, {NASTY: ones, "b" + NASTY: ones}, {NASTY: ones, "b" + NASTY: ones}), NASTY)
    axes = tuple(replace(a, domain=NASTY + a.domain) for a in fake_report.report().axes)
    for results in ((result,), (result, result)):
        report = fake_report.report(
            title=NASTY,
            about=NASTY,
            results=results,
            domains=(NASTY,),
            axes=axes,
            made=NASTY,
            command=NASTY,
            study_file=(NASTY, NASTY),
            curves=(LearningCurve(NASTY, ({"success": 0.5, f"validation_success/{NASTY}": 0.5},), NASTY),),
            forecasts=tuple(replace(check, name=NASTY, why=NASTY) for check in fake_report.arms().forecasts),
            episodes=fake_report.sets(NASTY, [replace(nasty, outcome=Outcome.SUCCESS)], **{NASTY: [nasty]}),
            settings={NASTY: {NASTY: NASTY}},
            versions={NASTY: NASTY},
        )
        page = page_with_episodes(report, tmp_path)
        tree = Tree(page)
        assert tree.tags.count("script") == 1
        assert "img" not in tree.tags
        assert tree.wrong == []
        assert tree.tags.count("style") == 1 + page.count("<defs>\n  <style")
        assert "\x00" not in page
        assert "\u202e" not in page
        assert "⟨U+0000⟩⟨U+202E⟩" in tree.text
        assert "<script>alert(1)</script>" in tree.text  # as words
        assert "{{ 7*7 }}" in tree.text  # not 49
        assert "onerror" not in {name for _, name, _ in tree.attributes}


def test_one_result_has_its_sentences_on_top():
    one = fake_report.results(seeds=1, arms=(("sokoban", "plain"),))
    text = Tree(render(Report("One", one))).text
    assert (
        text.index("This checkpoint lost") < text.index("On sokoban itself: ") < text.index("Success on every domain")
    )
    assert text.index("Significant changes on targets") > text.index(
        "What it cost", text.index("Success on every domain")
    )
    assert text.count("takes 3 training seeds or more") == 1
    assert "Learning" not in text
    assert "512 tasks 384 on 3 targets, 128 on the source; 1 training seed" in text
    assert "over 512 tasks" in text  # as many as the caveat has
    same = dict.fromkeys("ab", np.repeat([1.0, 0.0], 32))
    text = Tree(render(Report("None", (ArmResult(tax_report("a", same, same)),)))).text
    assert "the tax rate is undefined, because the interval of ΔID contains 0" in text


def test_arms_are_compared_and_touched_targets_marked(page_of_arms):
    report, page = fake_report.arms(), page_of_arms
    text = Tree(page).text.replace("\xa0", " ")
    imitation, replay = report.results[0], report.results[2]
    first = text[text.index("Summary") : text.index("Success on every domain")]
    assert lead(summary(report.results)) in first
    for line in summary(report.results):
        assert line.name in first
        assert f"{100 * line.tax.value:.0f} %".replace("-", "−") in first
    assert f"cuts {percent(replay.versus_baseline.tax_removed)} of the tax of imitation" in first
    assert f"there imitation lost {percent(replay.baseline_tax)}" in first
    assert not imitation.untouched_only
    assert page.count("* touched") == 1  # one target of one arm
    assert '<th scope="row">imitation+<wbr>replay</th>' in page  # a line may end between the parts of a name
    assert "gain on source, points (right is better)" in text
    assert "random play" in text
    assert "above chance" in text


def test_claims_are_a_section_and_a_table(page):
    """An arm's name is foreign text there, too."""
    init, after = np.tile([1.0, 0.0], 60), np.tile([0.0, 0.0, 1.0, 0.0], 30)
    text = "drop('<b>arm') > 5"
    stated = [
        Claim(text, drop("arm", ["shop"]), limit=0.05, above=True),
        Claim("drop(arm) < 24", drop("arm", ["shop"]), limit=0.24),
    ]
    claims = tuple(assess(stated, {"init": {"shop": init}, "arm": {"shop": after}}))
    made = fake_report.short(claims=claims)
    html = render(made)
    assert "drop(&#39;&lt;b&gt;arm&#39;) &gt; 5" in html
    assert "<b>arm" not in html
    assert not Tree(html).wrong
    assert '<span class="badge free">supported</span>' in html
    assert '<span class="badge undecided">undecided</span>' in html
    assert "would take" in html
    assert "2 claims are tested two-sided" in html
    first, second = read_csv(tables(made)["claims"])
    assert (first["claim"], first["source"], first["outcome"]) == (text, "", "supported")
    assert second["tasks_needed"] == str(claims[1].needed.tasks)
    assert 'id="claims"' not in page


@pytest.mark.parametrize(("fail", "outcome"), [(99, "PASS"), (5, "FAIL")])
def test_the_release_gate_is_shown_with_its_limits(page, fail, outcome):
    (result,) = fake_report.results(arms=(("webshop", "plain"),))
    gate = Gate(tax=PercentLimit(f"{fail} %"), other_targets=PointsLimit("98 points", "90 points")).judged(result.tax)
    text = Tree(render(Report("Gate", (result,), gate=gate))).text
    assert f"Release gate {outcome}" in text
    assert re.search(rf"tax on all targets {outcome} \d+\.\d \d+\.\d to \d+\.\d – {fail}\.0", text)
    assert "drop on alfworld PASS" in text
    assert "90.0 98.0" in text
    assert 'id="gate"' not in page


def test_the_verdict_comes_first():
    lines = summary(fake_report.arms().results)
    said = lead(lines)
    assert said.startswith(f"imitation lost: a tax of {percent(lines[0].tax)}; rl ")
    assert said.endswith("of the tax of imitation.")
    many = lead(lines[:1] * 5)
    assert many == f"Of 5 trained policies: 5 lost; the largest tax is that of imitation, {percent(lines[0].tax)}; " + (
        f"the smallest tax is that of imitation, {percent(lines[0].tax)}."
    )


def test_curves_may_miss_anything_and_show_success_on_validation_tasks():
    rows = [
        {"step": 1, "success": 0.1, "validation_success/sokoban": 0.5},
        {"step": 2},
        {"kl": float("nan"), "entropy": None},
        {"step": 4, "length": 3},
    ]
    page = render(Report("Curves", curves=(LearningCurve("a", tuple(rows)),)))
    for shown in ("success, train and validation tasks", "validation success on sokoban", "episode length"):
        assert shown in Tree(page).text
    assert "KL to the start" not in page
    for key in ("validation_success", "test_success"):
        more = render(Report("Curves", curves=(LearningCurve("a", tuple(row | {key: 0.4} for row in rows)),)))
        assert more.count("<use ") > page.count("<use ")  # rings
    with pytest.raises(UsageError, match="report needs"):
        Report("Nothing")


def test_long_curves_do_not_make_a_long_page():
    short, long = (render(Report("Curve", curves=(fake_report.curve("a", "plain", 0, n),))) for n in (400, 2000))
    assert len(long) < 1.5 * len(short)


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_tables_hold_every_value_with_its_limits():
    report = fake_report.arms()
    made = tables(report)
    assert set(made) == {"taxes", "matrix", "arms", "domains"}
    row = next(r for r in read_csv(made["matrix"]) if (r["arm"], r["domain"]) == ("imitation", "sciworld"))
    drop = report.results[0].tax.drop["sciworld"]
    assert [float(row[f"drop_points{end}"]) for end in ("", "_low", "_high")] == pytest.approx(
        [drop.value, drop.low, drop.high], rel=1e-4
    )
    assert float(row["random_percent"]) == pytest.approx(random_success(report.results)["sciworld"].value, rel=1e-4)
    roles = {r["domain"]: r["role"] for r in read_csv(made["matrix"]) if r["arm"] == "imitation+replay"}
    assert roles == {"sokoban": "source", "sciworld": "target", "webshop": "touched target", "alfworld": "target"}
    taxes = {r["arm"]: r for r in read_csv(made["taxes"])}
    assert taxes["imitation"]["tax_untouched"] == ""
    assert float(taxes["imitation+replay"]["tax_untouched"]) == pytest.approx(
        report.results[2].tax.tax_untouched.value, rel=1e-4
    )
    assert taxes["rl"]["tasks_targets"] == "384"


@pytest.mark.parametrize("name", ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'a,"b"\nc'])
def test_names_cannot_be_formulas_and_stay_in_their_cell(name):
    result = replace(fake_report.arms().results[0], arm=name)
    (row,) = read_csv(tables(fake_report.short(results=(result,)))["taxes"])
    assert row["arm"].removeprefix("'") == visible(name)
    assert not row["arm"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert float(row["gain_points_low"]) == pytest.approx(result.tax.delta_id.low, rel=1e-4)  # a number stays one


def test_the_page_holds_the_tables_and_no_code_in_them():
    nasty = replace(fake_report.arms().results[0], arm='="><script>alert(1)</script>')
    report = fake_report.short(results=(nasty,))
    page = render(report)
    assert "<script>alert" not in page
    assert "%27%3D%22%22%3E%3Cscript" in page  # quoted, in the CSV
    for name, table in tables(report).items():
        link = page.split(f'download="{name}.csv" href="data:text/csv;charset=utf-8,')[1].split('"')[0]
        assert unquote(link) == table


BEFORE = fake_report.episodes()[0].read()


def write_result(out):
    write_folder(out, fake_report.arms(), {"base": BEFORE, "tuned": BEFORE}, {"tax": 0.5})


@pytest.mark.slow
def test_a_result_folder_is_complete(tmp_path):
    out = tmp_path / "new" / "result"
    write_folder(out, fake_report.short(), {"base": BEFORE}, {"tax": 0.1})
    write_result(out)  # which replaces the earlier one
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == [
        "base/episodes.jsonl.gz",
        *(f"episodes/{name}.js" for name in ("0-0", "1-0", "2-0", "3-0", "index")),
        *(
            f"figures/{n}.{end}"
            for n in ("arms", "domains", "forecasts", "gain-and-tax", "matrix", "tax")
            for end in ("pdf", "svg")
        ),
        "report.html",
        "result.json",
        *(f"tables/{name}.csv" for name in ("arms", "domains", "matrix", "taxes")),
        "tuned/episodes.jsonl.gz",
    ]
    assert [episode.task for episode in read_episodes(out / "base")] == [episode.task for episode in BEFORE]
    assert json.loads((out / "result.json").read_text()) == {"tax": 0.5}
    assert len(list(out.parent.iterdir())) == 1  # nothing is left of the making


def test_folders_with_other_files_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'thesis.tex', which is no part of a result"):
        check_report_folder(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        check_report_folder(tmp_path / "thesis.tex")
    with pytest.raises(UsageError):
        write_result(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
    (tmp_path / "thesis.tex").unlink()
    check_report_folder(tmp_path)  # empty
    check_report_folder(tmp_path / "none")


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("gentax.report.page.save", full)  # the pictures: the page is there by then
    with pytest.raises(OSError, match=r"^the report could not be written to .*: No space left on device$"):
        write_report(fake_report.short(), tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_folder(tmp_path / "out", fake_report.short(), {}, {"tax": float("nan")})
    assert list(tmp_path.iterdir()) == []
