"""The benchmarks that a test machine can run whole, at their smallest: they must still fit the code they measure."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    monkeypatch.setattr("warnings.filters", [*sys.modules["warnings"].filters])  # the scripts turn some off


def test_the_profile_of_a_run_accounts_for_its_time(scripts, toy, tiny, capsys):
    import run_profile

    run_profile.main(
        ["--source", "toy", "--base", str(tiny), "--steps", "2", "--tasks", "2", "--iterations", "4"],
    )
    said = capsys.readouterr().out
    assert {"decoding", "environments", "other"} <= set(said.split())  # the tiny model never wins: nothing to learn
    assert "over 4 steps" in said


def test_the_run_book_resumes(scripts, tmp_path, monkeypatch, capsys):
    import gpu_runbook

    monkeypatch.setattr("training_step.trl_version", lambda: None)  # which takes half a minute to load
    monkeypatch.setattr("tax_study.datamix", lambda _: {"webshop": 1.0})  # SciWorld's engine takes seconds to start
    monkeypatch.setattr(gpu_runbook, "PROBED", 8)
    command = ["--toy", "--out", str(tmp_path), "--flops", "1e11", "--bandwidth", "1e10"]
    gpu_runbook.main(["--check"])
    assert "scipy" in capsys.readouterr().out
    gpu_runbook.main([*command, "--minutes", "0"])
    assert capsys.readouterr().out.count("time is up") == 3
    gpu_runbook.main(command)
    said = capsys.readouterr().out
    assert said.count("the study is done") == 2  # after piece 2, and piece 3 does nothing twice
    assert said.count("training warm-up") == 1
    assert "tax" in said

    found = json.loads((tmp_path / "throughput.json").read_text())["sizes"]["tiny"]
    assert [(row["decoder"], row["batch"]) for row in found["decode"]] == [
        ("LlamaDecoder", 1), ("LlamaDecoder", 4), ("generate", 4),
    ]  # fmt: skip
    assert all(row["of_roofline"] > 0 for row in [*found["decode"], found["learn"]])
    study = json.loads((tmp_path / "study.json").read_text())
    assert study["seeds"] == 2
    assert set(study["success"]) == {"base", "warmed up", "GRPO on crafting"}
    assert all(set(of) == {"crafting", "sokoban"} for of in study["success"].values())
    assert len(study["tax"]) == 3
    assert study["success"]["GRPO on crafting"]["sokoban"]["seeds"] == 2


def test_a_failed_measurement_does_not_stop_the_others(scripts, tmp_path, monkeypatch):
    import gpu_throughput
    import torch

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_throughput, "decode", no_memory)
    monkeypatch.setattr(gpu_throughput, "learn", lambda *_: {"s_per_step": 1.0, "tokens_per_s": 2.0})
    found = {}
    gpu_throughput.measure("tiny", torch.device("cpu"), gpu_throughput.TINY, None, None, False, found, lambda: None)
    assert found["decode"] == {"fault": "OutOfMemoryError: CUDA out of memory"}
    assert "out of memory" in gpu_throughput.table({"tiny": found})
    assert "1.000" in gpu_throughput.table({"tiny": found})


def test_training_stops_at_the_deadline_and_is_continued(scripts, tmp_path, monkeypatch):
    import tax_study

    plan = tax_study.Plan(
        model="base", source="crafting", domains=("crafting", "sokoban"), mix={"crafting": 1.0}, seeds=1, groups=1,
        group=2, play={"context": "window(2)"}, tasks=2, seconds=0.0, learned_per_s=1e3, pairs=320,
        steps=1,
    )  # fmt: skip
    study = tax_study.Study(tmp_path, lambda: plan, tax_study.ModelOptions(), say=lambda what: None)
    study.evaluate(tax_study.BASE, lambda: "base")
    began = tax_study.time.monotonic()
    study.deadline = began + 1e9

    def clock():  # the time is up at the first step of the warm-up
        return began + (2e9 if (tmp_path / "warm-up" / "imitation.jsonl").is_file() else 0)

    with monkeypatch.context() as patched, pytest.raises(tax_study.TimeIsUp):
        patched.setattr(tax_study, "time", SimpleNamespace(monotonic=clock))
        study.run()
    assert list((tmp_path / "warm-up").glob("sft-*"))
    study.run()
    assert study.figures()["seeds"] == 1


def test_the_script_of_a_real_model_prints_all_its_figures(scripts, tmp_path, monkeypatch, capsys):
    import model_rates
    import real_model
    import tax_study

    monkeypatch.setattr(real_model, "alone", model_rates.here)
    monkeypatch.setattr(real_model, "PROBED", 2)
    monkeypatch.setattr(real_model, "LEARNED", 8)
    monkeypatch.setattr(real_model, "datamix", lambda _: {"webshop": 1.0})
    monkeypatch.setattr(tax_study, "LEAST", {"tasks": 2, "pairs": 8, "steps": 1})
    monkeypatch.setattr(real_model, "trl_version", lambda: None)
    sizes = ["--budget", "0", "--batch", "1", "2", "--domains", "crafting", "sokoban"]
    real_model.main(["--model", "base", *sizes, "--folder", str(tmp_path), "--json", str(tmp_path / "all.json")])
    said = capsys.readouterr().out
    assert "GRPO on crafting beside warmed up" in said
    found = json.loads((tmp_path / "all.json").read_text())
    for name in ("crafting", "sokoban"):
        for side in ("gentax", "generate"):
            assert found["rates"]["playing"][name][side]["minutes_of_32_episodes"] > 0
    assert found["rates"]["learning"]["gentax"]["peak_mb"] > 0
    assert found["rates"]["replies"]["crafting"]["with_an_action"] > 0.5
    assert found["study"]["plan"]["tasks"] == 2


def test_gemma_is_refused_where_its_parts_are_not(scripts, tmp_path, capsys):
    import gemma

    with pytest.raises(SystemExit):
        gemma.main(["--folder", str(tmp_path)])
    assert 'pip install "gentax[gemma]"' in capsys.readouterr().err
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.gguf.part00").write_bytes(b"GGUF")
    with pytest.raises(SystemExit):
        gemma.main(["--folder", str(tmp_path), "--gguf", str(tmp_path / "parts")])
    assert "do not make up Gemma 3 270M" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.gguf"))


def test_no_pair_or_step_is_planned_without_time(scripts):
    import tax_study

    plan = tax_study.Plan(
        model="base", source="crafting", domains=("crafting", "sokoban"), mix={"crafting": 1.0}, seeds=3, groups=2,
        group=4, play={}, tasks=10, seconds=0.0, learned_per_s=1e3,
    )  # fmt: skip
    took = {"episodes": 10, "seconds": 10.0, "tokens_read": 9000, "tokens_written": 1000}
    played = {"crafting": took, "sokoban": took}
    assert plan.with_pairs(20.0).pairs == tax_study.LEAST["pairs"]
    assert plan.with_steps(20.0, played).steps == tax_study.LEAST["steps"]
    hour = replace(plan, seconds=3600.0)
    # 3600 s less five policies' evaluations of 20 s.
    assert hour.with_pairs(20.0).pairs == int(3500 / 2 / (tax_study.PAIR_S + tax_study.PAIR_TOKENS / 1e3))
    # 1540 s are left after three of them, for 3 seeds of steps of 8 episodes at 1 s + 1 s.
    assert hour.with_steps(2000.0, played).steps == int(1540 / (3 * 8 * 2))


def test_gradients_in_bf16_are_held_against_fp32(scripts, capsys):
    import gradient_precision

    gradient_precision.main(["--domain", "crafting", "--pairs", "8"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == len(gradient_precision.KINDS)
    cosines = [float(row[-1]) for row in rows]
    assert cosines[:2] == [1.0, 1.0]
    assert min(cosines) > 0.98
