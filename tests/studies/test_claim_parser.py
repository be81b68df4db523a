"""Claims in a study file: what the grammar accepts, what it refuses, and what a finished study says of them."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from gentax.core import UsageError
from gentax.core.settings import read_settings
from gentax.report.text import claim_notes, claim_rows, claims_table
from gentax.studies.claim_parser import MOST_CLAIMS, read_claims
from gentax.studies.plan import make_plan
from gentax.studies.results import analyze
from gentax.studies.study import Study, read_study

DOMAINS = ("sokoban", "crafting", "webshop", "babyai")


def study(*claims: str, sources=("sokoban",), **changes) -> Study:
    values = {
        "name": "made",
        "domains": {name: {"tasks": 64} for name in DOMAINS},
        "sources": list(sources),
        "arms": {
            "plain": {},
            "replay": {"forgetting": {"replay": 1.0, "replay_domains": ["webshop"]}},
            "my arm": {"max_steps": 3},
        },
        "seeds": [0, 1, 2],
        "claims": list(claims),
    }
    return read_settings(Study, values | changes, "test")


@pytest.mark.parametrize(
    ("text", "over", "limit", "above"),
    [
        ("tax(replay) < tax(plain) on untouched", ("crafting", "babyai"), 0, False),
        ("tax(replay) < tax(plain)", ("crafting", "babyai"), 0, False),  # as verdicts: touched targets stand apart
        ("tax(plain)<10%", ("crafting", "webshop", "babyai"), 0.1, False),
        ("tax(replay) on touched < 10 percent", ("webshop",), 0.1, False),
        ("tax(replay) <= -5 % on all", ("crafting", "webshop", "babyai"), -0.05, False),
        ("gain(sokoban, plain) > 5", ("sokoban",), 0.05, True),
        ("5 points < gain(plain)", ("sokoban",), 0.05, True),
        ("drop(plain, babyai) ≤ 2", ("babyai",), 0.02, False),
        ("drop(plain) < \N{MINUS SIGN}2.5 points on babyai, crafting", ("babyai", "crafting"), -0.025, False),
        ("tax_rate(plain) < 0.5", ("crafting", "webshop", "babyai", "sokoban"), 0.5, False),
        ("tax_removed(replay) >= 50 %", ("crafting", "babyai"), 0.5, True),
        ("success('my arm') > success(base) on sokoban", ("sokoban",), 0, True),
        ("success(random) < 5 %", ("crafting", "webshop", "babyai"), 0.05, False),
    ],
)
def test_what_the_grammar_means(text, over, limit, above):
    (claim,) = read_claims(study(text))
    assert (claim.over, claim.limit, claim.above) == (over, pytest.approx(limit), above)
    if claim.right is not None:
        assert claim.right.over == claim.left.over


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("txa(plain) < 5 %", "unknown measure 'txa'; did you mean 'tax'"),
        ("tax(plian) < 5 %", "unknown arm or domain 'plian'; did you mean 'plain'"),
        ("tax(plain) < 5 % on untuched", "unknown domain 'untuched'; did you mean 'untouched'"),
        ("drop(plain) on babyay < 5", "unknown domain 'babyay'; did you mean 'babyai'"),
        ("gain(plain, crafting) > 5", "unknown source 'crafting'"),
        ("tax(plain) < 0.1", "such as `0.1 %`, not `0.1`"),
        ("drop(plain) < 5 %", "such as `5 points`, not `5 %`"),
        ("tax(plain) < gain(plain)", "tax and gain have different units"),
        ("tax(plain) on sokoban < 5 %", "sokoban is the source, and no target of tax"),
        ("tax(plain) on touched < 5 %", "every target is untouched there"),
        ("gain(plain) > 5 on webshop", "takes no `on`"),
        ("drop(plain, babyai) < 5 on webshop", "twice"),
        ("tax(plain, replay) < 5 %", "takes one arm"),
        ("tax() < 5 %", "takes an arm: plain, replay"),
        ("tax_removed(plain) > 5 %", "has no tax to remove"),
        ("1 < 2", "two numbers"),
        ("tax(plain) < tax(plain)", "both sides are the same"),
        ("tax(plain) 5 %", "one of < <= > >="),
        ("tax(plain) < 5 % < 6 %", "one of < <= > >="),
        ("tax(plain <", "is no measure"),
        ("tax('plain) < 5 %", "quote that does not end"),
        ("tax(plain) < nan %", "neither a measure"),
        ("__import__('os').system('true') < 5", "unknown measure"),
        ("tax(plain) < 5 %" + " " * 500, "more than 400 characters"),
        ("tax(plain)\n< 5", "such as `5 %`, not `5`"),
        ("", "one of < <= > >="),
    ],
)
def test_claims_that_mean_nothing_are_refused_by_name(text, says):
    with pytest.raises(UsageError, match="of study made") as refused:
        read_claims(study(text))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_claims_are_refused_when_the_study_is_read(tmp_path):
    file = tmp_path / "study.yaml"
    text = "name: x\ndomains: {sokoban: {}, crafting: {}}\nsources: [sokoban]\nclaims: ['tax(plane) < 5 %']\n"
    file.write_text(text)
    with pytest.raises(UsageError, match="did you mean 'plain'"):
        read_study(file)
    with pytest.raises(UsageError, match="stated twice"):
        read_claims(study("tax(plain) < 5 %", "tax(plain)  < 5 %"))
    with pytest.raises(UsageError, match=f"at most {MOST_CLAIMS} claims"):
        read_claims(study(*(f"gain(plain) > {n}" for n in range(MOST_CLAIMS + 1))))


def test_a_claim_is_made_for_each_source_that_it_does_not_name():
    several = study("drop(plain) < 5 on webshop", sources=("sokoban", "webshop", "crafting"))
    assert [claim.source for claim in read_claims(several)] == ["sokoban", "crafting"]  # webshop is no target of itself
    (between,) = read_claims(study("tax(plain, sokoban) < tax(plain, crafting)", sources=("sokoban", "crafting")))
    assert between.left.over == between.right.over == ("webshop", "babyai")
    (both,) = read_claims(study("drop(plain, sokoban, crafting) < drop('my arm')", sources=("sokoban", "crafting")))
    assert both.left.over == both.right.over == ("crafting",)  # and both sides are of sokoban
    assert {role for role, _ in both.right.numerator} == {"init", "my arm on sokoban"}


class MadeStore:
    """Scores in place of evaluations: base 50 %, training that gains at home and loses a third elsewhere, or less."""

    def __init__(self, plan):
        rates = {"plain": 0.33, "replay": 0.48, "my arm": 0.47}
        self.success = {stage: self.made(0.3 if name == "sokoban" else 0.5) for name, stage in plan.init.items()}
        self.success |= {stage: self.made(0.02) for stage in plan.random.values()}
        for (arm, source, seed, name), stage in plan.after.items():
            self.success[stage] = self.made(0.7 if name == source else rates[arm] + seed / 64)

    @staticmethod
    def made(rate: float) -> list[float]:
        return (np.arange(64) < round(64 * rate)).astype(float).tolist()

    def json(self, stage, name):
        return {"success": self.success[stage], "content": [str(n) for n in range(64)]}


def test_a_finished_study_says_what_became_of_its_claims():
    texts = (
        "tax(replay) < tax(plain) on untouched",
        "gain(sokoban, plain) > 60",
        "drop('my arm') <= 2 on all",
        "success(base) > success(random)",
    )
    made = study(*texts)
    plan = make_plan(made)
    results = analyze(plan, MadeStore(plan))
    found = results.to_json()["claims"]
    assert [(one["claim"], one["outcome"]) for one in found] == [
        (texts[0], "supported"), (texts[1], "refuted"), (texts[2], "undecided"), (texts[3], "supported"),
    ]  # fmt: skip
    assert found[0]["estimate"]["seeds"] == 3
    assert found[0]["domains"] == ["crafting", "babyai"]
    assert found[0]["estimate"]["n"] == 128  # tasks
    assert {one["correction"]["claims"] for one in found} == {4}
    assert found[2]["needed"]["seeds"] is None or found[2]["needed"]["seeds"] > 3
    assert found[2]["needed"]["tasks"] is None or found[2]["needed"]["tasks"] > 64
    out = Console(file=io.StringIO(), width=140)
    out.print(claims_table(results.claims))
    lines = out.file.getvalue()
    assert "supported" in lines
    assert "would take" in lines
    assert claim_rows(results.claims)[2].needed
    assert any(
        "4 claims are tested two-sided at 5 %, corrected for their number" in n for n in claim_notes(results.claims)
    )


def test_claims_change_the_address_of_the_report_alone():
    with_claims, without = (make_plan(made) for made in (study("tax(plain) < 5 %"), study()))
    assert with_claims.report.digest != without.report.digest
    other = {stage.digest for stage in with_claims.stages() if stage is not with_claims.report}
    assert other == {stage.digest for stage in without.stages() if stage is not without.report}
    more = dataclasses.replace(study(), claims=("gain(plain) > 5",))
    assert make_plan(more).report.digest not in (with_claims.report.digest, without.report.digest)
