"""gentax: measure, forecast and cut the generalization tax of LLM agents.

The public surface is what `__all__` names. Each name is loaded when it is first used, so that `import gentax` is
quick and a person who only plays an environment never loads PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers and editors do not run `__getattr__`
    from gentax.core import Domain, Episode, Outcome, Task, TextEnv, UsageError
    from gentax.domains import make
    from gentax.domains.check import check
    from gentax.evals.evaluate import evaluate
    from gentax.evals.paired_eval import tax
    from gentax.evals.probe import probe
    from gentax.models.options import ModelOptions
    from gentax.rollouts import EvalRolloutConfig, RolloutConfig, rollout
    from gentax.training import TrainConfig, train
    from gentax.wrappers import distract

__version__ = "0.1.0"

_HOME = {
    "make": "gentax.domains",
    "rollout": "gentax.rollouts",
    "check": "gentax.domains.check",
    "evaluate": "gentax.evals.evaluate",
    "probe": "gentax.evals.probe",
    "tax": "gentax.evals.paired_eval",
    "train": "gentax.training",
    "distract": "gentax.wrappers",
    "TrainConfig": "gentax.training",
    "RolloutConfig": "gentax.rollouts",
    "EvalRolloutConfig": "gentax.rollouts",
    "ModelOptions": "gentax.models.options",
    "Task": "gentax.core",
    "Episode": "gentax.core",
    "Outcome": "gentax.core",
    "TextEnv": "gentax.core",
    "Domain": "gentax.core",
    "UsageError": "gentax.core",
}
__all__ = [
    "Domain",
    "Episode",
    "EvalRolloutConfig",
    "ModelOptions",
    "Outcome",
    "RolloutConfig",
    "Task",
    "TextEnv",
    "TrainConfig",
    "UsageError",
    "check",
    "distract",
    "evaluate",
    "make",
    "probe",
    "rollout",
    "tax",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gentax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
