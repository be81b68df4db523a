"""The page holds what it was given, needs nothing else, and trusts nothing it shows."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import made_up
import matplotlib
import numpy as np
import pytest

from gentax.core import Outcome, UsageError
from gentax.metrics.tax import tax_report
from gentax.report import Curve, EpisodePair, Report, Result, render, write
from gentax.report.figures import scatter
from gentax.report.headline import headlines, share

VOID = {"meta", "br", "hr", "img", "link", "input"}
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


@pytest.fixture(scope="module")
def page():
    return render(made_up.report())


def test_every_part_is_there(page):
    text = Tree(page).text
    for heading in ("In short", "Success on every domain", "What it cost", "Learning", "The domains", "Episodes"):
        assert heading in text
    result = made_up.results()[3]
    assert f"{result.tax.after['alfworld'].value:.1f}" in text
    assert f"{result.tax.drop['alfworld'].low:.1f} to {result.tax.drop['alfworld'].high:.1f}" in text
    assert f"{result.tax.tax.low:.2f} to {result.tax.tax.high:.2f}" in text
    assert "gentax study run studies/four.yaml" in text
    assert "2 h 3 min" in text
    assert "play.context window(2)" in text


def test_the_source_is_marked_in_its_row(page):
    homes = re.findall(r'<td class="c-\w+ home[^"]*">', page)
    assert len(homes) == len(made_up.AFTER)


def test_undecided_cells_look_undecided(page):
    drops = [e for result in made_up.results() for e in result.tax.drop.values()]
    undecided = sum(e.holds(0) and e.value != 0 for e in drops)
    assert 0 < undecided < len(drops)
    cells = page.split('<table class="heat">')[1].split("</table>")[0]
    assert cells.count("▽") + cells.count("△") == undecided
    assert cells.count("▼") + cells.count("▲") == len(drops) - undecided + len(made_up.AFTER)


def test_the_page_needs_nothing_else(page):
    tree = Tree(page)
    assert tree.wrong == []
    assert tree.stack == []
    assert not {"link", "img", "iframe", "object", "form"} & set(tree.tags)
    for tag, name, value in tree.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith(("#", "data:text/csv")), (tag, name, value)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_the_one_script_is_known_by_its_hash(page):
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in page
    assert "<script" not in render(made_up.report(pairs=()))


def test_episodes_have_what_they_are_filtered_by(page):
    shown = re.findall(r'<details data-domain="(\w+)" data-outcome="(\w+)"', page)
    assert shown == [("sokoban", "gained"), ("alfworld", "lost")]
    assert '<div class="filter" hidden>' in page  # without a script it would do nothing
    assert "<option>alfworld</option>" in page
    assert 'name="arm"' not in page  # there is one
    pairs = tuple(replace(pair, arm=arm) for pair in made_up.report().pairs for arm in ("a", "b"))
    assert 'name="arm"' in render(made_up.report(pairs=pairs))


def test_ids_are_unique(page):
    links = {v[1:] for _, n, v in Tree(page).attributes if n in ("href", "xlink:href") and v[0] == "#"}
    ids = [v for _, n, v in Tree(page).attributes if n == "id"]
    assert links <= set(ids)
    for name in ("matrix", "costs", "learning", "axes", "episodes", "made"):
        assert ids.count(name) == 1


def test_what_others_wrote_is_escaped_and_made_visible():
    nasty = made_up.episode(3, [NASTY], Outcome.FAILURE, say=NASTY)
    nasty = replace(nasty, goal=NASTY, final=NASTY, error=NASTY)
    ones = np.repeat([1.0, 0.0], 32)
    result = Result(tax_report(NASTY, {NASTY: ones, "b" + NASTY: ones}, {NASTY: ones, "b" + NASTY: ones}), NASTY)
    axes = tuple(replace(a, domain=NASTY + a.domain) for a in made_up.report().axes)
    for results in ((result,), (result, result)):
        page = render(
            made_up.report(
                title=NASTY,
                about=NASTY,
                results=results,
                domains=(NASTY,),
                axes=axes,
                made=NASTY,
                command=NASTY,
                curves=(Curve(NASTY, ({"success": 0.5},), NASTY),),
                pairs=(EpisodePair(nasty, nasty, NASTY, NASTY), EpisodePair(nasty, nasty, arm="b")),
                settings={NASTY: {NASTY: NASTY}},
                versions={NASTY: NASTY},
            )
        )
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


def test_data_is_never_read_as_mathematics():
    point = made_up.report().axes[0]
    svg = scatter([("$x^2$ \\alpha", point.planning, point.success)], "x", "y")
    assert "$x^2$ \\alpha" in Tree(svg).text


def test_the_same_report_gives_the_same_page(page):
    assert render(made_up.report()) == page


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    render(made_up.report())
    assert dict(matplotlib.rcParams) == before


def test_one_result_has_its_sentences_on_top():
    one = made_up.results(seeds=1, arms=(("sokoban", "plain"),))
    text = Tree(render(Report("One", one))).text
    assert (
        text.index("This checkpoint lost") < text.index("On sokoban itself: ") < text.index("Success on every domain")
    )
    assert text.index("Target by target") > text.index("What it cost", text.index("Success on every domain"))
    assert text.count("takes 3 training seeds or more") == 1
    assert "Learning" not in text
    assert "512 tasks 384 on 3 targets, 128 at home; 1 training seed" in text
    assert "over 512 tasks" in text  # as many as the caveat has


def test_arms_stand_side_by_side_and_what_they_touched_is_marked():
    report = made_up.arms()
    page = render(report)
    text = Tree(page).text.replace("\xa0", " ")
    imitation, replay = report.results[0], report.results[2]
    first = text[text.index("In short") : text.index("Success on every domain")]
    for line in headlines(report.results):
        assert line.name in first
        assert f"{100 * line.tax.value:.0f} %".replace("-", "−") in first
    assert f"cuts {share(replay.beside.tax_removed)} of the tax of imitation" in first
    assert f"there imitation lost {share(replay.baseline_tax)}" in first
    assert not imitation.marked
    assert page.count("* touched") == 1  # one target of one arm
    assert "gain at home, points (right is better)" in text
    assert "random play" in text
    assert "above chance" in text


def test_undefined_measures_say_why():
    ones = np.repeat([1.0, 0.0], 32)
    text = Tree(render(Report("None", (Result(tax_report("a", {"a": ones, "b": ones}, {"a": ones, "b": ones})),)))).text
    assert "the tax rate is undefined, because the interval of ΔID holds 0" in text


def test_given_sentences_go_on_top():
    text = Tree(render(made_up.report(answer=("The claim holds.", "Mostly.")))).text
    assert text.index("The claim holds.") < text.index("Mostly.") < text.index("Success on every domain")


def test_rows_of_a_curve_may_miss_anything():
    rows = ({"step": 1, "success": 0.1}, {"step": 2}, {"kl": float("nan"), "entropy": None}, {"step": 4, "length": 3})
    text = Tree(render(Report("Curves", curves=(Curve("a", rows),)))).text
    assert "success, seen and unseen tasks" in text
    assert "episode length" in text
    assert "KL to the start" not in text


@pytest.mark.parametrize("key", ["validation_success", "test_success"])
def test_success_on_unseen_tasks_is_drawn(key):
    rows = [{"step": i, "success": 0.5} for i in range(1, 5)]
    without, with_it = (
        render(Report("Curve", curves=(Curve("a", tuple(r | more for r in rows)),))) for more in ({}, {key: 0.4})
    )
    assert with_it.count("stroke-dasharray") > without.count("stroke-dasharray")


def test_long_curves_do_not_make_a_long_page():
    short, long = (render(Report("Curve", curves=(made_up.curve("a", "plain", 0, n),))) for n in (400, 20_000))
    assert len(long) < 1.5 * len(short)


def test_an_episode_that_broke_shows_the_error():
    broken = replace(made_up.episode(1, ["up"], Outcome.ERROR), error="the JVM died")
    text = Tree(
        render(Report("Broken", pairs=(EpisodePair(broken, made_up.episode(1, ["up"], Outcome.SUCCESS)),)))
    ).text
    assert "the environment broke" in text
    assert "the JVM died" in text


def test_a_pair_is_one_task_and_a_page_is_not_empty():
    with pytest.raises(UsageError, match="one task"):
        EpisodePair(made_up.episode(1, [], Outcome.SUCCESS), made_up.episode(2, [], Outcome.SUCCESS))
    with pytest.raises(UsageError, match="report needs"):
        Report("Nothing")


def test_write_makes_one_file(tmp_path):
    write(made_up.report(curves=(), axes=()), tmp_path / "deep" / "page.html")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["page.html"]
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
