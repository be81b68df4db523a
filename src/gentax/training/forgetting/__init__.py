"""Methods that make training in one domain cost the others less, behind one protocol of hooks.

A method is one file here: a subclass of `ForgettingMethod` that overrides the hooks it needs. The run knows none by
name. To add one to gentax, write its file and name its class in `METHODS`, by the setting of `ForgettingConfig` that
turns it on; one outside gentax is named in the setting `forgetting.custom`, as `module:Class`.

Three ways to forget less are something else already: the KL penalty is a term of the policy-gradient loss (`beta`),
LoRA is what is trained (`learner.py`), and distractors are a wrapper of the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gentax.core import Episode, Task, UsageError
from gentax.core.imports import load_attribute
from gentax.rollouts import RolloutConfig, rollout
from gentax.training.config import ForgettingConfig, TrainConfig

if TYPE_CHECKING:  # PyTorch is not loaded to refuse a config
    import torch

    from gentax.policies.local import LocalPolicy
    from gentax.training.distributed import World
    from gentax.training.rollout_worker import TaskPool

    Weights = Mapping[str, torch.Tensor]

METHODS = {  # setting of `ForgettingConfig` -> module here and class
    "replay": "replay_kl:ReplayKL",
    "kl_budget": "kl_budget:KLBudget",
    "merge": "merge:Merge",
}


@dataclass
class Start:
    """The policy that training starts from, for `ForgettingMethod.before_training`."""

    policy: LocalPolicy
    """Plays with the start's weights until the hook returns; afterwards they may be trained in place."""
    load_model: Callable[[], Any]
    world: World
    """The processes of the run. All of them call every hook together."""
    parallel: int | None = None
    """Episodes in flight at once; as many as memory holds when None."""

    @cached_property
    def model(self) -> Any:
        """The start's model, on the device and frozen: weights that training does not change. Loaded when it is asked
        for, and then kept."""
        return self.load_model()

    def rollout(self, tasks: Sequence[Task], config: RolloutConfig, seed: int) -> list[Episode]:
        """Let the policy play this process's share of some tasks, `tasks[rank::size]`."""
        own = tasks[self.world.rank :: self.world.size]
        return rollout(self.policy, own, config=config, seed=seed, parallel=self.parallel)


class ForgettingMethod:
    """A way to forget less. Every hook is optional: override what the method needs.

    Everything random in a hook must be seeded by the config, so that a continued run does the same again.

    Attributes:
        config: every setting of the run.
        setting: the one that turned the method on, for messages.
        start_at: which policy is the start: the one the run is given ("base"), or the one that policy gradient begins
            with ("rl"), after supervised fine-tuning.
        keeps_start_model: whether `start.model` is used, for the estimate of memory.
        result: name of the folder for the weights that `finalize` returns.
    """

    start_at: Literal["base", "rl"] = "base"
    keeps_start_model = False
    result = "finalized"

    def __init__(self, config: TrainConfig, setting: str = "") -> None:
        self.config, self.setting = config, setting

    def touched_domains(self) -> Iterable[str]:
        """Return the domains that are not trained on but whose tasks or text the method reads."""
        return ()

    def before_training(self, start: Start, tasks: Iterable[TaskPool]) -> None:
        """Prepare, such as by playing episodes with the start. Called once, also when a stopped run is continued.

        Args:
            start: the policy that training starts from (see `start_at`).
            tasks: the pools of what is trained on.
        """

    def extra_loss(self, model: Any, step: int) -> dict[str, float]:
        """Add the gradient of a loss of the method's own to the model's (`backward`); return figures to log.

        Called once for each optimizer step, of supervised fine-tuning as of policy gradient. With several processes
        gradients are summed and figures averaged.

        Args:
            model: what is being trained.
            step: the step of the stage, from 1.
        """
        return {}

    def should_stop(self, metrics: dict[str, float], model: Any) -> bool:
        """Return whether to end policy gradient here and keep the last checkpoint before this one.

        Called when a checkpoint is due, before it is written.

        Args:
            metrics: of the step; what is put in is logged.
            model: the policy's model with the weights of now, whole in every process.
        """
        return False

    def finalize(
        self, start: Weights, trained: Weights, success_of: Callable[[Weights], float]
    ) -> tuple[Weights, dict[str, Any]]:
        """Return the weights that the run ends with, and facts for `done.json`. Called once, after training.

        Weights are on the CPU; `success_of` plays the validation tasks with some and returns the success, 0 to 1.
        """
        return trained, {}

    def train_instead(self, run: Path, train: Callable[[TrainConfig, Path], Path]) -> Path | None:
        """Train in another way than by one run, and return the model folder; None, as usual, for one run.

        Args:
            run: the run's folder.
            train: trains by another config in another folder and returns its model.
        """
        return None


def forgetting_methods(config: TrainConfig) -> list[ForgettingMethod]:
    """Return the methods that a config turns on.

    Raises:
        UsageError: a custom method that cannot be imported or is none.
    """
    settings, off = config.forgetting, ForgettingConfig()
    classes = {}
    for setting, place in METHODS.items():
        if getattr(settings, setting) != getattr(off, setting):
            module, _, name = place.partition(":")
            classes[f"forgetting.{setting}"] = getattr(import_module(f"{__name__}.{module}"), name)
    for name in settings.custom:
        method = load_attribute("forgetting method", name)
        if not (isinstance(method, type) and issubclass(method, ForgettingMethod)):
            raise UsageError(
                f"forgetting method {name!r} is no subclass of gentax.training.forgetting.ForgettingMethod"
            )
        classes[f"forgetting.custom {name}"] = method
    return [method(config, setting) for setting, method in classes.items()]


def implementing(methods: Iterable[ForgettingMethod], hook: str) -> list[ForgettingMethod]:
    """Return the methods that override a hook."""
    return [method for method in methods if getattr(type(method), hook) is not getattr(ForgettingMethod, hook)]
