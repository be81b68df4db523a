"""lm-evaluation-harness asks the models before and after training, and its task is a target of their tax."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from chat_server import ChatServer
from command import run
from gentax.core import UsageError
from gentax.integrations.lm_eval import HarnessTarget
from gentax.models.options import ModelOptions
from gentax.models.source import BASE
from gentax.policies import load_policy

SUMS = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
"""
GENERATED = """
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOSEN = """
doc_to_choice: ["2", "3", "4"]
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.fixture
def sums(tmp_path, monkeypatch):
    """The folder of a task of three sums, which `sums.yaml` asks for and `choice.yaml` offers answers to."""
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"1 + {n} =", "answer": str(1 + n)} for n in (1, 2, 3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, kind, rest in (("sums", "generate_until", GENERATED), ("choice", "multiple_choice", CHOSEN)):
        (tmp_path / f"{name}.yaml").write_text(SUMS.format(data=tmp_path / "sums.jsonl", kind=kind) + rest)
    return tmp_path


def added(request):
    """The right answer."""
    return str(1 + int(request["messages"][-1]["content"].split()[2]))


def test_without_the_harness_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = run("tax", "--tuned", "base", "--source", "sokoban", "-t", "lm-eval:ifeval")
    assert (done.code, done.err) == (2, "gentax: lm-eval:ifeval needs lm_eval: pip install lm_eval\n")


def test_servers_are_asked_and_their_samples_pair(sums):
    target = HarnessTarget.parse(f"lm-eval:{sums / 'sums.yaml'}")
    with ChatServer(added) as before, ChatServer(lambda request: "2") as after:
        recorded = target.measure(load_policy(before.url), load_policy(after.url), limit=100)
        assert (recorded.before_K.tolist(), recorded.after_K.tolist()) == ([1, 1, 1], [1, 0, 0])
        assert len(set(recorded.contents)) == 3
        assert len(target.measure(load_policy(before.url), load_policy(after.url), limit=2).before_K) == 2
        limited = load_policy(before.url, ModelOptions(input_price=1, spend_limit=1))
        with pytest.raises(UsageError, match="without a spend limit"):
            target.measure(limited, limited, 2)
        with pytest.raises(
            UsageError, match=r"lm-eval:choice cannot be run: .*Loglikelihood is not supported for chat"
        ):
            HarnessTarget.parse(f"lm-eval:{sums / 'choice.yaml'}:acc").measure(*[load_policy(before.url)] * 2, 2)


def test_a_completions_server_scores_as_the_same_model_here(sums):
    policy = load_policy("base")

    def choice(index, ids):
        """Score the prompt's tokens and one more, as vLLM does for `echo`."""
        with torch.no_grad():
            logprobs = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        best = logprobs.max(-1).values.tolist()
        scores = [None, *logprobs[range(len(ids) - 1), ids[1:]].tolist(), best[-1]]
        tops = [None, *({"the best": value} for value in best)]
        found = {"token_logprobs": scores, "top_logprobs": tops}
        return {"index": index, "text": "2", "logprobs": found, "finish_reason": "length"}

    def answer(request):
        return {"choices": [choice(index, ids) for index, ids in enumerate(request["prompt"])]}

    choose, say = (HarnessTarget.parse(f"lm-eval:{sums / task}") for task in ("choice.yaml:acc", "sums.yaml"))
    with ChatServer(answer, models=[str(BASE)]) as server:
        behind = load_policy(f"{server.url}/completions")
        recorded = choose.measure(policy, behind, limit=100)
        assert recorded.before_K.tolist() == recorded.after_K.tolist()
        assert say.measure(behind, behind, limit=100).after_K.tolist() == [1, 0, 0]
    with ChatServer(answer, models=["nobody/knows"]) as server, pytest.raises(UsageError, match="needs the tokenizer"):
        choose.measure(policy, load_policy(f"{server.url}/completions"), 2)


def test_a_task_stands_beside_what_is_played(sums):
    played = ["tax", "--tuned", "base", "--source", "sokoban", "--tasks", 2, "-t"]
    done = run(*played, "lm-eval:choice.yaml:acc", cwd=sums)
    assert done.code == 0, done.err
    (row,) = [line for line in done.out.splitlines() if line.startswith("lm-eval:choice")]
    assert "0.0 (" in row  # one policy loses nothing
    done = run(*played, "lm-eval:choice.yaml", cwd=sums)
    assert "several metrics: write lm-eval:choice:METRIC, with one of acc, acc_norm" in done.err
    done = run(*played, "lm-eval:choice.yaml:acc", "--base", "random", cwd=sums)
    assert "lm-eval:choice is for models, in this process or behind a server, not for 'random'" in done.err
    (sums / "sums.jsonl").unlink()
    done = run(*played, "lm-eval:sums.yaml", cwd=sums)
    assert (done.code, done.err.splitlines()[-1][:36]) == (2, "gentax: lm-eval:sums cannot be run: ")


@pytest.mark.slow
def test_an_unknown_task_is_named_with_the_nearest():
    pytest.importorskip("lm_eval")
    with pytest.raises(UsageError, match=r"unknown task of lm-evaluation-harness 'ifevall'; did you mean 'ifeval'\?"):
        HarnessTarget.parse("lm-eval:ifevall")
    with pytest.raises(UsageError, match="lm-eval:mmlu is a group of tasks"):
        HarnessTarget.parse("lm-eval:mmlu")
