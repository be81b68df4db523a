"""The training run: play, learn, look, keep. Everything random is seeded by (seed, step), so a run can be continued
from its last checkpoint as if it had not been stopped.

The stages: imitation, when the recipe has it; policy-gradient steps on what the course says; at the end, when the
recipe says so, weights between the start's and the trained ones. `run_folder.py` says what is written where.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gentax.core import NonFiniteLoss, UsageError
from gentax.core.console import end_line, shows_progress, status
from gentax.core.files import atomic_folder
from gentax.core.process import Interrupt, deferred_interrupt, freed_memory_kept
from gentax.models.loading import load_meta_model, load_model, resolve_device
from gentax.models.memory import available_memory
from gentax.models.requests import ModelOptions
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.training.check import check
from gentax.training.checkpoint import (
    checkpoints,
    left,
    load_optimizer,
    optimizer_state,
    pack,
    read_beside,
    save_checkpoint,
    save_model,
    unpack,
)
from gentax.training.config import TrainConfig
from gentax.training.critic import Critic
from gentax.training.curriculum import Curriculum
from gentax.training.distributed import World, join
from gentax.training.forgetting import KLMonitor, ReplayKL, interpolate, nearest_that_keeps, replayed_domains
from gentax.training.learner import learner_of, with_rates
from gentax.training.memory import check_memory, parameters_of
from gentax.training.policy_gradient import update
from gentax.training.rollout_worker import RolloutWorker
from gentax.training.run_folder import Row, RunFolder, result, shown_rows
from gentax.training.sft_data import ExpertData

SAVE_IMITATION = 200  # steps of imitation between two checkpoints


@freed_memory_kept()
def train(
    config: TrainConfig,
    out: str | Path,
    on_row: Callable[[Row], None] = lambda row: None,
    *,
    progress: bool | None = None,
) -> Path:
    """Train a policy; return the model folder that the run came to.

    A folder that holds a stopped run of the same recipe is continued. On Ctrl-C the step in flight is finished and
    its checkpoint written before KeyboardInterrupt is raised. Under torchrun every process calls this alike.

    Args:
        config: every setting.
        out: the run's folder.
        on_row: told each step's metrics as they come, in the first process (see `summary.py` for the keys); while
            imitating, rows that have `imitate`, the number of the step, and `of`, how many there are.
        progress: whether those rows are shown, and first how large the model is, what of it is trained and what memory
            that takes; None for where a person is watching, in a terminal or a notebook.

    Raises:
        UsageError: a domain, level or model that does not exist or must not be trained on; settings that contradict
            each other; a folder of another run; a model too large for the memory there is.
        NonFiniteLoss: the loss stopped being a number; the message names the batch and the last good checkpoint.
        OSError: a checkpoint could not be written; the one before is intact.
    """
    shown = shows_progress(progress)
    check(config)
    run, bare = Path(out), load_meta_model(config.model, config.options())
    config = with_rates(config, parameters_of(bare))
    if (folder := result(run)) is not None:
        RunFolder.open(run, config, World())  # refuses another recipe
        return folder
    on_row = shown_rows(config.updates, progress, on_row)
    if config.forgetting.merge is not None:
        from gentax.training.experts import train_and_merge

        return train_and_merge(config, run, on_row)
    if config.trainer == "trl":
        from gentax.training.trl_trainer import refuse, train_with_trl

        refuse(config)
        if "LOCAL_RANK" not in os.environ:  # alone; how DeepSpeed spreads a model over processes is not counted
            device = resolve_device(config.device)
            check_memory(bare, config, device, available_memory(device))  # TRL takes no less
        return train_with_trl(config, run, on_row)
    with join(config) as world, deferred_interrupt() as interrupt:
        checkpointing = _fits(config, bare, world, shown)
        return _Run(
            config, run, world, on_row, interrupt, checkpointing, status if shown and world.first else _silent
        ).whole()


def _silent(text: str) -> None:
    """Stand where `status` would be."""


def _fits(config: TrainConfig, bare: Any, world: World, shown: bool) -> bool:
    """Refuse what the device has no room for, and print how the run learns; return whether by checkpointing.

    Args:
        bare: the model, without weights.
    """
    device = resolve_device(config.device, world.local, world.size)
    # On a CPU the processes share what there is; they all decide by what the first one sees.
    (left, *_) = world.everyone(available_memory(device) / (world.size if device.type == "cpu" else 1))
    found = check_memory(bare, config, device, left, world.size)
    if world.first and shown:
        rates = [f"{config.learning_rate:g}"] if config.updates else []
        rates += [f"{config.sft.learning_rate:g} (imitation)"] if config.sft is not None else []
        end_line()
        print(f"{found} of {left / 1e9:.1f} on {device}; learning rate {', '.join(rates)}", flush=True)
    return found.gradient_checkpointing


class _Run:
    """One run in flight."""

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        world: World,
        on_row: Callable[[Row], None],
        interrupt: Interrupt,
        gradient_checkpointing: bool,
        status: Callable[[str], None],
    ) -> None:
        self.status = status
        self.config, self.path, self.world, self.interrupt = config, path, world, interrupt
        self.on_row = on_row if world.first else lambda row: None
        self.course = Curriculum(config)
        self.grounds = self.course.grounds.values()
        self.options = config.options(str(resolve_device(config.device, world.local, world.size)))
        status(f"  loading {config.model}")
        self.policy = load_local_policy(config.model, self.options)
        self.folder = RunFolder.open(path, config, world)
        self.learner = learner_of(self.policy, config, world, gradient_checkpointing=gradient_checkpointing)
        self.critic = (
            Critic(self.policy.model, config.algorithm) if config.algorithm.advantage_estimator == "ppo" else None
        )
        self.playing = RolloutWorker(config, self.course, world, self.options.device)

    def whole(self) -> Path:
        """Do what is left of the run; return the folder of its result."""
        forgetting = self.config.forgetting
        # What the start plays, it plays before its weights change.
        replayed = replayed_domains(self.config) if forgetting.replay else ()
        if replayed:
            self.status(f"  playing {', '.join(replayed)} with the base, for replay")
        self.replay = ReplayKL.play(self.policy, self.config, replayed, self.world) if replayed else None
        self.start = self._start() if self.replay else None
        if self.config.sft is not None and self._untouched():
            self._imitate()
        if self.course.steps:
            self._reinforce()
        if forgetting.interpolate is not None:
            return self._interpolate(forgetting.interpolate)
        return self.folder.finish(self._best())

    # The stages.

    def _imitate(self) -> None:
        """Learn from others' episodes, up to the checkpoint `step-000000`."""
        imitation = ExpertData.of(self.config, self.policy, self.path / "imitated.safetensors", self.world, self.status)
        self.policy.release_memory()  # it may have played what is imitated, or replayed
        optimizer = imitation.optimizer(self.learner.parameters)
        done = self._resume("imitate", optimizer)
        for step in range(done + 1, imitation.steps + 1):
            extra = self._replay(step) if self.replay else None
            with self._told():
                row = imitation.step(step, self.learner, optimizer, self.world, extra)
            if step == 1 or step % 10 == 0 or step == imitation.steps:
                self.on_row({"imitate": step, "of": imitation.steps, **row})
            asked = self._asked()
            if (asked or step % SAVE_IMITATION == 0) and step < imitation.steps:
                self._save(f"imitate-{step:06d}", optimizer)
                if asked:
                    raise KeyboardInterrupt
        self.learner.publish()
        self._save("step-000000", None, imitated=imitation.counts)
        if self._asked():
            raise KeyboardInterrupt

    def _reinforce(self) -> None:
        """Take the policy-gradient steps that are left."""
        config, world = self.config, self.world
        assert config.learning_rate is not None  # since `train`
        optimizer = torch.optim.Adam(self.learner.parameters, lr=config.learning_rate, fused=True)
        reference = meter = None
        if config.algorithm.beta or config.forgetting.kl_budget is not None:
            beginner = self._beginner()
            reference = beginner.model if beginner is not self.policy else self.start or self._start()
            if config.forgetting.kl_budget is not None:
                self.status("  playing what forgetting is measured on")
                meter = KLMonitor.play(beginner, config, self.grounds, world)
                beginner.release_memory()
                if self._untouched():
                    self._save("step-000000", None)  # what is kept when the first look says stop
        done = self._resume("step", optimizer)
        self.folder.back_to(done)
        with self.playing:
            for step in range(done + 1, self.course.steps + 1):
                began = time.monotonic()
                if step == done + 1:
                    self.status("  playing the first batch of episodes")
                row = self._step(step, optimizer, reference)
                if self.course.looks(step):
                    row |= self.playing.look(self.policy)
                asked = self._asked()
                due = self.course.keeps(step)
                if due and meter is not None:
                    row["forgetting"] = meter.read(reference, self.policy.model)
                row = self.folder.log(row, time.monotonic() - began, self.course.steps)
                self.on_row(row)
                if self._forgot(row):
                    break
                if due or asked:
                    self._save(f"step-{step:06d}", optimizer, phase_ends=self.course.ends(step))
                if asked:
                    raise KeyboardInterrupt

    def _step(self, step: int, optimizer: torch.optim.Optimizer, reference: Any) -> Row:
        """Play one batch of groups and learn from it."""
        played = self.playing.play(self.policy, step, self.folder.rows)
        for group in optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.course.rate(step)
        with self._told():
            learned = update(
                self.learner,
                reference,
                optimizer,
                played.episodes,
                played.rewards,
                self.config,
                f"step {step}",
                temperature=played.lesson.rollout.temperature,
                world=self.world,
                critic=self.critic,
                extra=self._replay(step) if self.replay else None,
            )
        self.learner.publish()
        return self.playing.row(step, played, learned)

    def _interpolate(self, keep: float) -> Path:
        """Choose weights between the start's and the trained ones by validation tasks."""
        trained = self._best()
        options = self.config.options("cpu")
        start, tuned = (load_model(name, options).state_dict() for name in (self.config.model, trained))
        with self.playing:

            def success_at(share: float) -> float:
                self.policy.model.load_state_dict(interpolate(start, tuned, share))
                self.policy.clear_cache()
                found = self.playing.look(self.policy)
                if "validation_success" not in found:
                    raise UsageError("forgetting.interpolate: no validation task was played without an error")
                return found["validation_success"]

            share, tried = nearest_that_keeps(success_at, keep)
        out = self.path / "interpolated"
        if self.world.first:
            with atomic_folder(out) as aside:
                save_model(self.policy.model, self.policy.tokenizer, aside, interpolate(start, tuned, share))
        return self.folder.finish(out, share=share, tried=tried, trained=trained.name)

    # What they share.

    def _replay(self, step: int) -> Callable[[], dict[str, float]]:
        assert self.replay is not None
        return lambda: self.replay.backward(self.learner.model, self.start, self.config, step, self.world)

    def _start(self) -> Any:
        """Return the model the run starts from, to be compared with."""
        return self.learner.start_model() or load_model(self.config.model, self.options)

    def _beginner(self) -> LocalPolicy:
        """Return the policy that RL begins with: what the KL term holds to, and the meter measures from."""
        if self.config.sft is not None:
            return load_local_policy(self.path / "step-000000", self.options)
        return self.policy  # whose weights are still those of the start

    def _best(self) -> Path:
        """Return the last checkpoint, or the last below the limit where forgetting is measured."""
        kept = dict(checkpoints(self.path))
        if self.config.forgetting.kl_budget is not None:
            below = {int(row["step"]) for row in self.folder.rows if "forgetting" in row and not self._forgot(row)}
            kept = {step: folder for step, folder in kept.items() if step == 0 or step in below}
        return kept[max(kept)]

    def _resume(self, kind: str, optimizer: torch.optim.Optimizer) -> int:
        """Go back to the last checkpoint of a kind; return its step, 0 where there is none."""
        if not (kept := checkpoints(self.path, kind)):
            return 0
        step, folder = kept[-1]
        beside = read_beside(folder)
        self.learner.load(load_model(folder, ModelOptions("cpu")).state_dict(), unpack(beside, "learner"))
        if flat := unpack(beside, "optimizer"):
            load_optimizer(optimizer, flat)
        if self.critic is not None and (state := unpack(beside, "critic")):
            self.critic.load_state(state)
        return step

    def _save(self, name: str, optimizer: torch.optim.Optimizer | None, **facts: Any) -> None:
        weights, state = self.learner.weights(), self.learner.state()
        memory = optimizer_state(optimizer) if optimizer is not None else {}
        if self.world.first:
            parts = {"learner": state, "optimizer": memory}
            if self.critic is not None:
                parts["critic"] = self.critic.state()
            save_checkpoint(self.path, name, self.policy.model, self.policy.tokenizer, weights, pack(**parts), facts)
        self.world.wait()

    def _untouched(self) -> bool:
        """Return whether there is no checkpoint yet; asked together, before a process that is ahead writes one."""
        return bool(self.world.most(int(not checkpoints(self.path))))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say which checkpoint is left when a loss stops the run."""
        try:
            yield
        except NonFiniteLoss as fault:
            raise NonFiniteLoss(f"{fault}; {left(self.path)}") from None

    def _forgot(self, row: Row) -> bool:
        limit = self.config.forgetting.kl_budget
        return limit is not None and row.get("forgetting", 0.0) > limit

    def _asked(self) -> bool:
        """Return whether any process was asked to stop."""
        return bool(self.world.most(int(self.interrupt.requested)))
