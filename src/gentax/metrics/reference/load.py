"""Reads the papers' numbers, which lie beside this file as JSON, into typed rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from gentax.core import unknown
from gentax.metrics.reference.types import (
    Change,
    Gain,
    PrintedChange,
    PrintedRank,
    Published,
    PublishedAxes,
    Row,
    WarmUp,
)

STUDIES = ("2601.18217", "2603.12011")  # arXiv numbers: "Paying Less Generalization Tax", "Can RL Improve …"


@cache
def published(key: str = STUDIES[0]) -> Published:
    """Return the printed numbers of a paper by its arXiv number.

    >>> row = published().row("V2", "sokoban")
    >>> row.init["webshop"], row.after["webshop"], published().axes.state_characters[row.source]
    (38.3, 34.0, 3114)

    Raises:
        UsageError: a paper whose numbers are not kept here.
    """
    if key not in STUDIES:
        raise unknown("published study", key, STUDIES)
    text = files("gentax.metrics.reference").joinpath("data", f"{key}.json").read_text(encoding="utf-8")
    return study_of(key, json.loads(text))


def study_of(key: str, raw: Mapping[str, Any]) -> Published:
    """Return the numbers of a paper from JSON values; what is not among them is empty."""
    init, ranks = raw.get("initial_success_pct", {}), raw.get("ood_rank_score", {})
    changes = raw.get("printed_ood_change_pct", {})
    return Published(
        key=key,
        citation=raw["source"],
        note=raw["note"],
        setup=raw.get("setup", {}),
        init=init,
        rows=tuple(_row(row, init) for row in raw.get("rows", ())),
        axes=_axes(raw["axes"]) if "axes" in raw else None,
        ood_change=tuple(
            PrintedChange(arm, policy, source, printed)
            for arm, policies in changes.items()
            for policy, sources in policies.items()
            for source, printed in sources.items()
        ),
        warm_up=tuple(_warm_up(line, tuple(init)) for line in raw.get("printed_sft_warmup", ())),
        rank_tie=ranks.get("tie_pp", 0.0),
        rank_score=tuple(
            PrintedRank(tuple(policies.split("_plus_")), source, printed)
            for policies, sources in ranks.items()
            if policies != "tie_pp"
            for source, printed in sources.items()
        ),
        changes=tuple(Change(**line) for line in raw.get("changes", ())),
        gains=tuple(_gain(line, raw["setup"]["domains"]) for line in raw.get("gains", ())),
    )


def _row(line: Mapping[str, Any], init: Mapping[str, Mapping[str, float]]) -> Row:
    same = {key: line[key] for key in ("policy", "source", "arm", "rl_steps", "table")}
    return Row(**same, delta_id=line["delta_id_pp"], ood=line["ood_success_pct"], init=init[line["policy"]])


def _axes(raw: Mapping[str, Any]) -> PublishedAxes:
    return PublishedAxes(
        policy=raw["policy"],
        trajectories=raw["trajectories_per_domain"],
        horizon=raw["horizon"],
        state_characters=raw["mean_state_chars"],
        trajectory_length=raw["mean_trajectory_length_failures_at_horizon"],
    )


def _warm_up(line: Mapping[str, Any], policies: tuple[str, ...]) -> WarmUp:
    without, warm = policies
    return WarmUp(
        source=line["source"],
        target=line["target"],
        covered=line["covered"],
        policies=(without, warm),
        relative=(line[f"{without}_rel"], line[f"{warm}_rel"]),
        difference=line["diff_pp"],
        beside=(line.get(f"{without}_cell"), line.get(f"{warm}_cell")),
    )


def _gain(line: Mapping[str, Any], domains: list[str]) -> Gain:
    """Write out which pairs of domains a printed mean is over."""
    trained, over = line["trained"], line["over"]
    sources = domains if trained == "each domain" else [trained]
    pairs = [
        (s, t) for s in sources for t in (domains if over == "other domains" else over) if s != t or len(over) == 1
    ]
    return Gain(
        model=line["model"],
        trained=trained,
        over=over if isinstance(over, str) else ", ".join(over),
        pairs=tuple(pairs),
        printed=line["printed"],
        against=line.get("against", "the start"),
    )
