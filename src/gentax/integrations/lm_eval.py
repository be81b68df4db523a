"""Tasks of lm-evaluation-harness as targets of a tax: `lm-eval:TASK[:METRIC]`. The harness asks both models itself.

TASK is a name of the harness, or a YAML file. Settings are the harness's defaults: few-shot examples as the task has
them, and a chat template only where a chat API applies it. For others run the harness, and give its logs to
`gentax tax --results`. Not supported: groups of tasks, models in vLLM (start it as a server), scripted policies.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gentax.core import UsageError, unknown
from gentax.core.imports import require
from gentax.integrations.sample_logs import Sample, harness_sample, pair_samples
from gentax.metrics.episode_scores import RecordedScores
from gentax.policies.endpoint import EndpointPolicy
from gentax.policies.protocol import Policy

PREFIX = "lm-eval:"
CHAT, COMPLETIONS = "local-chat-completions", "local-completions"
COMPLETIONS_NEED = (  # a server's log-probabilities of a prompt are for tasks with answers to choose from
    "; of a completions server the harness needs the tokenizer, from the server or by the model's name, and for "
    "answers to choose from its `echo` with `logprobs`"
)
BATCH_SIZE = 8  # prompts at a time, or requests in flight
TRIAL_SAMPLES = 2


@cache
def _task_manager(shipped: bool = True) -> Any:
    """Return the index of the harness's own tasks, which takes it many seconds, or of none."""
    return require("lm_eval.tasks", "lm-eval").TaskManager(include_defaults=shipped)


@dataclass(frozen=True)
class HarnessTarget:
    """`lm-eval:TASK[:METRIC]` of the command line."""

    task: str
    metric: str | None

    @property
    def name(self) -> str:
        """The target's name in a report."""
        return PREFIX + (Path(self.task).stem if Path(self.task).suffix in (".yaml", ".yml") else self.task)

    @classmethod
    def parse(cls, text: str) -> HarnessTarget:
        """Read the option.

        Raises:
            UsageError: the harness is not installed, or has no such task.
        """
        require("lm_eval", text)
        task, _, metric = text.removeprefix(PREFIX).partition(":")
        if not Path(task).is_file():
            manager = _task_manager()
            if task in {*manager.all_groups, *manager.all_tags}:
                raise UsageError(f"{PREFIX}{task} is a group of tasks: name those that you want, one by one")
            if task not in manager.all_subtasks:
                raise unknown("task of lm-evaluation-harness", task, manager.all_subtasks)
        return cls(task, metric or None)

    def measure(self, base: Policy, tuned: Policy, limit: int) -> RecordedScores:
        """Let the harness ask both models the first `limit` samples of the task, and pair what they score.

        Before that it scores a few samples of a model that says nothing, so that a task that cannot be loaded or a
        metric that is not there is found at once.

        Raises:
            UsageError: the task cannot be run, or not with such a model; a metric that is not there or no score in
                [0, 1].
        """
        models = [self._model(policy) for policy in (base, tuned)]
        pair_samples({self.name: self._run("dummy", {}, TRIAL_SAMPLES)}, self.metric, f"{self.name}:METRIC")
        sides = zip((f"{self.name}, before", f"{self.name}, after"), models, strict=True)
        samples = {side: self._run(*model, limit) for side, model in sides}
        return pair_samples(samples, self.metric)

    def _model(self, policy: Policy) -> tuple[Any, dict[str, Any]]:
        """Return the harness's class of a model, or its name, and how it is made."""
        if isinstance(policy, EndpointPolicy):
            server = policy.server
            if server.budget.limit is not None:
                raise UsageError(f"{self.name}: the harness asks {server.url} without a spend limit")
            arguments = {"model": policy.model, "num_concurrent": BATCH_SIZE}
            if server.chat:
                return CHAT, {"base_url": f"{server.url}/chat/completions", **arguments}
            # The harness takes the server's tokenizer, or that of a model of this name.
            return COMPLETIONS, {
                "base_url": f"{server.url}/completions",
                "tokenizer_backend": "auto",
                **arguments,
            }
        model, tokenizer = getattr(policy, "model", None), getattr(policy, "tokenizer", None)
        if not hasattr(model, "forward") or tokenizer is None:
            raise UsageError(f"{self.name} is for models, in this process or behind a server, not for {policy.name!r}")
        hf = require("lm_eval.models.huggingface", self.name)
        # The harness gives the tokenizer a padding token, and may add one.
        return hf.HFLM, {"pretrained": model, "tokenizer": copy.deepcopy(tokenizer), "batch_size": BATCH_SIZE}

    def _run(self, model: Any, arguments: dict[str, Any], limit: int) -> Sequence[Sample]:
        harness = require("lm_eval", self.name)
        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of defaults that a task leaves out
        try:
            found = harness.simple_evaluate(
                model=model if isinstance(model, str) else model(**arguments),
                model_args=arguments if isinstance(model, str) else None,
                tasks=[self.task],
                limit=limit,
                apply_chat_template=model == CHAT,
                bootstrap_iters=0,
                task_manager=_task_manager(not Path(self.task).is_file()),
            )
        except (Exception, SystemExit) as error:  # tasks are other people's code, and load data from the net
            reason = " ".join(str(error).split())[:300]
            needs = COMPLETIONS_NEED if model == COMPLETIONS else ""
            raise UsageError(f"{self.name} cannot be run: {type(error).__name__}: {reason}{needs}") from error
        records = [record for of_task in found["samples"].values() for record in of_task]
        return [harness_sample(record, self.name, f"sample {number}") for number, record in enumerate(records, 1)]
