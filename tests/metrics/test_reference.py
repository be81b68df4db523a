"""The papers' figures follow from their cells as far as they do; what is planted wrong, or elsewhere, is found out."""

from __future__ import annotations

import copy
import importlib.util
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.metrics.reference import STUDIES, Status, published, recompute, study_of
from gentax.metrics.reference.candidates import OOD_CHANGE, RANK, PrintedCells
from gentax.metrics.statistics import Scores
from gentax.metrics.tax import ood_change, tax_removed

DOCS = Path(__file__).parent.parent.parent / "docs"
OOD = "OOD change, %"
OOD_METRICS = OOD_CHANGE.stated + OOD_CHANGE.others


@pytest.fixture(scope="module")
def paper():
    return recompute(published("2601.18217"))


def judged(found, column, *where):
    (one,) = [j for c in found.columns if c.name == column for j in c.figures if j.where == where]
    return one


def best(judgement):
    return judgement.matches[0].metric if judgement.matches else None


def f(*cells):
    return [Fraction(cell) for cell in cells]


# --- by hand, from the printed tables and nothing of the package ---


def test_a_figure_under_the_stated_metric_by_hand(paper):
    plain, arm = f("17.0", "9.0", "13.8"), f("25.8", "11.8", "15.5")  # V2 webshop: alfworld, sokoban, sciworld
    by_hand = float(100 * (sum(arm) - sum(plain)) / sum(plain))
    assert round(by_hand, 1) == 33.4
    one = judged(paper, OOD, "distractors", "V2", "webshop")
    assert (one.status, best(one), one.printed) == (Status.REPRODUCED, "OOD change", 33.4)
    assert one.stated.value == pytest.approx(by_hand)


def test_a_figure_under_another_metric_by_hand(paper):
    init, plain, arm = f("25.8", "34.4"), f("20.5", "15.0"), f("21.2", "24.8")  # V1 sokoban: alfworld, webshop
    by_hand = float(100 * (sum(arm) - sum(plain)) / (sum(init) - sum(plain)))
    assert round(by_hand, 1) == 42.5
    one = judged(paper, OOD, "distractors", "V1", "sokoban")
    assert (one.status, best(one), one.printed) == (Status.OTHER, "tax removed", 42.5)
    assert one.matches[0].value == pytest.approx(by_hand)
    assert one.stated.value == pytest.approx(float(100 * (sum(arm) - sum(plain)) / sum(plain)))


def test_rank_score_by_hand(paper):
    # webshop-trained under V2: last on alfworld behind a tie (19.8 and 20.0), last on sokoban, first on sciworld.
    one = judged(paper, "OOD rank score", "V2", "webshop")
    assert (one.status, best(one), one.stated.value) == (Status.REPRODUCED, "rank score 1, 1, 2", 2 + 3 + 1)
    assert [m.metric for m in one.matches] == ["rank score 1, 1, 2"]  # 1, 1, 3 gives 7, and 1½ gives 7
    # sciworld-trained is in that tie and first elsewhere: 3, or 3½ where ties share, which is not what 3 stands for.
    names = [m.metric for m in judged(paper, "OOD rank score", "V2", "sciworld").matches]
    assert names == ["rank score 1, 1, 2", "rank score 1, 1, 3"]
    # alfworld-trained is in no tie: 3 + 2 + 3 under every reading.
    assert len(judged(paper, "OOD rank score", "V2", "alfworld").matches) == 3


def test_row_measures_by_hand(paper):
    (row,) = [r for r in paper.rows if r.row.name == "V2 sokoban, plain, 150 steps"]
    init, after = f("21.9", "38.3", "18.0"), f("20.0", "34.0", "13.0")
    lost = sum(init) - sum(after)
    assert row.tax.value == pytest.approx(float(lost / sum(init)))
    assert row.mean_drop.value == pytest.approx(float(lost / 3))
    assert row.tax_rate.value == pytest.approx(float(lost / 3 / f("35.7")[0]))
    assert row.tax.low < row.tax.value < row.tax.high


# --- what is found in the papers ---


def test_the_printed_column_is_two_metrics_and_one_figure_is_neither(paper):
    (column,) = [c for c in paper.columns if c.name == OOD]
    follow = [best(j) for j in column.figures]
    assert {name: follow.count(name) for name in follow} == {"tax removed": 9, "OOD change": 3, None: 1}
    assert {j.where for j in column.figures if j.status is Status.REPRODUCED} == {
        ("distractors", "V2", source) for source in ("alfworld", "webshop", "sokoban")
    }
    assert column.elsewhere < column.pairs / 5  # on the figures of other lines the same metrics seldom agree
    assert "9 follow tax removed, 3 follow OOD change, 1 follows nothing" in column.finding


def test_a_figure_with_a_missing_cell_says_so(paper):
    one = judged(paper, OOD, "no-thinking", "V2", "alfworld")
    assert (one.status, one.matches) == (Status.NOT, ())
    assert "no cell for sciworld: cannot be recomputed" in one.note
    # 0 in the missing cell is the lowest there is: (1.0 + 6.5 − 50.3) / 20.1 is −213 %, not −234.2 %.
    assert not {"tax removed", "OOD change"} & set(one.possible)


def test_claims_are_counted(paper):
    counts = {c.text: (c.status, c.holds, len(c.cases)) for c in paper.claims}
    below = published().rows
    cells = [(row.after[t], row.init[t]) for row in below if row.arm == "plain" for t in row.after]
    assert len(cells) == 26
    by_hand = sum(after < init for after, init in cells)
    assert counts["Nearly every out-of-domain cell lies below the start (plain)"] == (Status.REPRODUCED, by_hand, 26)
    assert counts["Longer training costs more elsewhere, summed over targets"] == (Status.REPRODUCED, 3, 3)
    (every,) = [c for c in paper.claims if "every arm" in c.text]
    assert every.against[-1].endswith("14.0 from 14.1?")  # rounding could turn it round, so it does not count
    (bare,) = [c for c in paper.claims if c.text.startswith("RL without thinking")]
    assert bare.against == ("V1 webshop, no-thinking, 150 steps",)
    (rich,) = [c for c in paper.claims if "richer" in c.text]
    assert (rich.holds, len(rich.cases), rich.remark) == (4, 6, "9 of the 24 orders of the sources do as well")
    assert [c.lacks for c in paper.claims if c.status is Status.UNCHECKABLE] == ["a number for either"]


# --- a made-up study ---


def made_up(printed, **cells):
    """A study of one policy, one source and the targets x, y: printed OOD changes of arms by their cells."""
    rows = [("plain", (20.0, 40.0)), *cells.items()]
    return {
        "citation": "made up",
        "note": "",
        "init": {"P": {"home": 10.0, "x": 50.0, "y": 60.0}},
        "ood_change": [{"arm": a, "policy": "P", "source": "home", "printed": value} for a, value in printed.items()],
        "rows": [
            {
                "policy": "P", "source": "home", "arm": arm, "rl_steps": 10, "delta_id": 30.0, "table": "1",
                "ood": {"x": x, "y": y},
            }
            for arm, (x, y) in rows
        ],
    }  # fmt: skip


def statuses(raw):
    (column,) = recompute(study_of("made up", raw)).columns
    return {j.where[0]: (j.status, best(j)) for j in column.figures}


def test_planted_figures_are_found_out():
    arm = (30.0, 44.0)  # +10 on 20, +4 on 40
    raw = made_up(
        {"stated": 23.3, "mean": 30.0, "removed": 28.0, "wrong": 61.7},
        stated=arm,
        mean=arm,
        removed=arm,
        wrong=arm,
    )
    assert statuses(raw) == {
        "stated": (Status.REPRODUCED, "OOD change"),  # 14 / 60
        "mean": (Status.OTHER, "mean change"),  # (10/20 + 4/40) / 2
        "removed": (Status.OTHER, "tax removed"),  # 14 / 50
        "wrong": (Status.NOT, None),
    }


def test_a_wrong_figure_planted_in_the_paper_is_not_reproduced():
    raw = copy.deepcopy(raw_of("2601.18217"))
    for line in raw["ood_change"]:
        if (line["arm"], line["policy"], line["source"]) == ("distractors", "V2", "sokoban"):
            line["printed"] = 7.7
    for line in raw["rank_score"]:
        if (line["policies"], line["source"]) == (["V2"], "webshop"):
            line["printed"] = 7
    found = recompute(study_of("planted", raw))
    assert judged(found, OOD, "distractors", "V2", "sokoban").status is Status.NOT
    assert best(judged(found, "OOD rank score", "V2", "webshop")) == "rank score 1, 1, 3"


def test_the_metric_that_explains_the_column_comes_first():
    # 25.0 is both the stated change of (25, 50) and its mean change.
    # −10.0 is both the tax saved by (23, 26), a metric tried earlier, and the mean change.
    raw = made_up(
        {"both": 25.0, "mean": 30.0, "again": 15.0, "two": -10.0},
        both=(25.0, 50.0),
        mean=(30.0, 44.0),
        again=(25.0, 42.0),
        two=(23.0, 26.0),
    )
    (column,) = recompute(study_of("made up", raw)).columns
    both, mean, again, two = column.figures
    assert (both.status, best(both)) == (Status.REPRODUCED, "OOD change")  # the stated metric is never passed over
    assert "mean change" in [m.metric for m in both.matches]
    assert (best(mean), best(again)) == ("mean change", "mean change")
    assert [m.metric for m in two.matches] == ["mean change", "tax saved"]


def test_missing_cells_are_judged_over_the_rest_and_never_as_stated():
    raw = made_up({"rest": 50.0, "none": 61.7}, rest=(30.0, None), none=(None, None))
    assert statuses(raw) == {"rest": (Status.OTHER, "OOD change"), "none": (Status.UNCHECKABLE, None)}


def test_a_denominator_that_may_be_0_gives_no_range():
    cells = PrintedCells({"x": (50.3, 50.0, 50.1)}, ("arm", "plain", "init"))
    by_name = {metric.name: metric.range(cells) for metric in OOD_METRICS}
    assert by_name["tax removed"] is None  # 50.1 − 50.0 is anything from 0 to 0.2
    assert by_name["OOD change"] is not None


# --- the range ---


@pytest.mark.parametrize("metric", OOD_METRICS, ids=lambda metric: metric.name)
def test_no_point_of_the_box_lies_outside_the_range(metric):
    rng = np.random.default_rng(0)
    base = {"arm": (1.0, 6.5, 8.0), "plain": (30.5, 9.8, 10.0), "init": (38.3, 14.1, 18.0)}
    gains = {"arm_gain": 51.3, "plain_gain": 60.6}
    groups = dict(zip("abc", zip(*base.values(), strict=True), strict=True))
    found = metric.range(PrintedCells(groups, tuple(base), gains))
    drawn = {role: np.array(cells)[:, None] + rng.uniform(-0.05, 0.05, (3, 4000)) for role, cells in base.items()}
    drawn |= {role: cell + rng.uniform(-0.05, 0.05, (1, 4000)) for role, cell in gains.items()}
    top, bottom = metric.ratios(*(drawn[role] for role in metric.roles))
    values = (top / bottom).sum(0)
    assert found.low <= values.min()
    assert values.max() <= found.high
    assert values.max() - values.min() > found.width / 3  # and it is no wider than it must be
    assert found.low < found.value < found.high


def test_a_tie_that_rounding_decides_widens_the_rank():
    found = RANK.stated[0].range(PrintedCells({"t": (10.0, 10.5)}, scalars={"tie": 0.5}))
    assert (found.value, found.low, found.high) == (1, 1, 2)


def test_the_registry_has_the_formulae_of_measure_tax():
    def scores(**percent):
        return {d: (np.arange(1000) < 10 * p).astype(float) for d, p in percent.items()}

    played = Scores.of(init=scores(x=50.0, y=60.0), plain=scores(x=20.0, y=40.0), bold=scores(x=30.0, y=44.0))
    cells = PrintedCells({"x": (50.0, 20.0, 30.0), "y": (60.0, 40.0, 44.0)}, ("init", "plain", "arm"))
    by_name = {metric.name: metric.range(cells) for metric in OOD_METRICS}
    assert by_name["OOD change"].value == pytest.approx(100 * ood_change(played, "home", "bold").value)
    assert by_name["tax removed"].value == pytest.approx(100 * tax_removed(played, "home", "bold").value)


# --- the data, and what is made of it ---


def raw_of(key):
    path = Path(importlib.util.find_spec("gentax.metrics.reference").origin).parent / "data" / f"{key}.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: published("2601.1821"), "did you mean '2601.18217'"),
        (lambda: published().row("V2", "sokobn"), "did you mean 'sokoban'"),
        (lambda: published().row("V1", "sciworld"), "no row of V1, sciworld"),
    ],
)
def test_what_is_not_there_is_named(ask, says):
    with pytest.raises(UsageError, match=says):
        ask()


@pytest.mark.parametrize("key", STUDIES)
def test_results_are_json(key):
    written = recompute(published(key)).to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert sum(written["counts"].values()) == sum(len(column["figures"]) for column in written["columns"])


def test_the_page_is_what_the_script_writes():
    spec = importlib.util.spec_from_file_location("published_tables_page", DOCS / "published_tables_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "results" / "published-tables.md").read_text(encoding="utf-8") == module.page()
