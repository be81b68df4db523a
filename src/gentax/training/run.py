"""The training run: supervised fine-tuning, then policy-gradient steps, with validation and checkpoints.

A policy-gradient step is `_Run._step`: rollout → advantages → loss → optimizer step; the last three are in
`policy_gradient.py`. Methods against forgetting (`forgetting/`) are called through their hooks. Everything random is
seeded by (seed, step), so a stopped run is continued from its last checkpoint as if it had not been stopped.
`run_folder.py` says what is written where.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from gentax.core import NonFiniteLoss, UsageError
from gentax.core.console import end_line, shows_progress, status
from gentax.core.files import atomic_folder, lock_folder
from gentax.core.process import Interrupt, deferred_interrupt, freed_memory_kept
from gentax.models.device import available_memory, resolve_device
from gentax.models.loading import load_meta_model, load_model
from gentax.models.options import ModelOptions
from gentax.policies.local import load_local_policy
from gentax.training.check import check
from gentax.training.config import TrainConfig
from gentax.training.distributed import World, join
from gentax.training.forgetting import Start, forgetting_methods, implementing
from gentax.training.learner import check_memory, learner_of, parameters_of, with_learning_rates
from gentax.training.policy_gradient import Critic, update
from gentax.training.rollout_worker import Curriculum, RolloutWorker
from gentax.training.run_folder import (
    Metrics,
    RunFolder,
    checkpoints,
    last_checkpoint_text,
    load_optimizer,
    optimizer_state,
    pack,
    read_training_state,
    result,
    save_checkpoint,
    save_model,
    show_progress,
    unpack,
)
from gentax.training.sft import SFTData

SFT_SAVE_STEPS = 200  # between two checkpoints of supervised fine-tuning


@freed_memory_kept()
def train(
    config: TrainConfig,
    out: str | Path,
    on_step: Callable[[Metrics], None] = lambda metrics: None,
    *,
    device: str = "auto",
    parallel: int | None = None,
    vllm_server_base_url: str | None = None,
    progress: bool | None = None,
    on_status: Callable[[str], None] | None = None,
) -> Path:
    """Train a policy; return the model folder that the run came to.

    A folder that holds a stopped run of the same config is continued. On Ctrl-C the step in flight is finished and
    its checkpoint written before KeyboardInterrupt is raised. Under torchrun every process calls this alike.

    Args:
        config: the recipe. A stopped run may be continued with other values of the arguments below.
        out: the run's folder.
        on_step: called with each step's metrics, in the first process (see `rollout_worker.py` for the keys); during
            supervised fine-tuning with `sft_step`, the number of the step, and `of`, how many there are.
        device: where the model is: `cpu`, `cuda`, `cuda:1` …; `auto` takes a GPU where there is one.
        parallel: episodes in flight at once; None for as many as memory holds, 128 at most. What is played does not
            depend on it, but for rounding.
        vllm_server_base_url: for trainer `trl`: a vLLM server that plays in place of this process (see
            `trl_trainer.py`).
        progress: whether those metrics are shown, and first how large the model is, what of it is trained and what
            memory that takes; None for where a person is watching, in a terminal or a notebook.
        on_status: called in the first process with what is being done between steps, such as collecting what a
            teacher does; shown with `progress` when None.

    Raises:
        UsageError: a domain, level or model that does not exist or must not be trained on; settings that contradict
            each other; a folder of another run, or one in which another process trains; a model too large for the
            memory there is.
        NonFiniteLoss: the loss stopped being a number; the message names the batch and the last good checkpoint.
        OSError: a checkpoint could not be written; the one before is intact.
    """
    if vllm_server_base_url is not None and config.trainer != "trl":
        raise UsageError("vllm_server_base_url is for trainer trl alone")
    check(config)
    run, meta_model = Path(out), load_meta_model(config.model, config.options(device))
    config = with_learning_rates(config, parameters_of(meta_model))
    if (folder := result(run)) is not None:
        RunFolder.open(run, config, World())  # refuses another config
        return folder
    first = os.environ.get("RANK", "0") == "0"  # of the processes of a run, the one that writes
    with lock_folder(run, "training") if first else nullcontext():
        shown = first and shows_progress(progress)
        on_step = show_progress(config.updates, progress, on_step)
        on_status = on_status or (status if shown else lambda text: None)
        train_part = partial(
            train,
            on_step=on_step,
            device=device,
            parallel=parallel,
            vllm_server_base_url=vllm_server_base_url,
            progress=False,
            on_status=on_status,
        )
        for method in forgetting_methods(config):
            if (folder := method.train_instead(run, train_part)) is not None:
                return folder
        if config.trainer == "trl":
            from gentax.training.trl_trainer import train_with_trl

            return train_with_trl(config, run, meta_model, on_step, device, parallel, vllm_server_base_url)
        with join(device) as world, deferred_interrupt() as interrupt:
            return _Run(
                config, run, meta_model, world, on_step, on_status, interrupt, device, parallel, shown
            ).complete()


class _Run:
    """One run in progress, in a folder that is locked; `meta_model` is the model without weights."""

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        meta_model: Any,
        world: World,
        on_step: Callable[[Metrics], None],
        on_status: Callable[[str], None],
        interrupt: Interrupt,
        device_name: str,
        parallel: int | None,
        shown: bool,
    ) -> None:
        self.config, self.path, self.world, self.interrupt, self.parallel = config, path, world, interrupt, parallel
        self.on_step = on_step if world.first else lambda metrics: None
        self.status: Callable[[str], None] = on_status if world.first else lambda text: None
        self.curriculum = Curriculum(config)
        device = resolve_device(device_name, world.local, world.size)
        # On a CPU the processes share the memory; they all decide by what the first one sees.
        (left, *_) = world.gather(available_memory(device) / (world.size if device.type == "cpu" else 1))
        need = check_memory(meta_model, config, device, left, world.size, parallel)
        if shown:
            rates = [f"{config.learning_rate:g}"] if config.updates else []
            rates += [f"{config.sft.learning_rate:g} (supervised)"] if config.sft is not None else []
            end_line()
            print(f"{need} of {left / 1e9:.1f} on {device}; learning rate {', '.join(rates)}", flush=True)
        self.options = config.options(str(device))
        self.status(f"  loading {config.model}")
        self.policy = load_local_policy(config.model, self.options)
        self.folder = RunFolder.open(path, config, world)
        self.learner = learner_of(
            self.policy, config, world, shard=need.shard, gradient_checkpointing=need.gradient_checkpointing
        )
        self.critic = Critic(self.policy.model) if config.algorithm.advantage_estimator == "ppo" else None
        self.worker = RolloutWorker(config, self.curriculum, world, self.options.device, parallel)
        self.methods = forgetting_methods(config)

    def complete(self) -> Path:
        """Do what is left of the run; return the folder of its result."""
        self._before_training("base")
        if self.config.sft is not None and self._has_no_checkpoint():
            self._fine_tune()
        if self.curriculum.steps:
            self._reinforce()
        return self._finalize()

    # The stages.

    def _fine_tune(self) -> None:
        """Supervised fine-tuning, up to the checkpoint `step-000000`."""
        cache = self.path / "sft.safetensors"
        data = SFTData.collect(self.config, self.policy, cache, self.world, self.status, self.parallel)
        self.policy.release_memory()
        optimizer = data.optimizer(self.learner.parameters)
        done = self._resume("sft", optimizer)
        for step in range(done + 1, data.steps + 1):
            with self._report_checkpoint_on_error():
                metrics = data.step(step, self.learner, optimizer, self.world, self._extra_loss(step))
            if step == 1 or step % 10 == 0 or step == data.steps:
                self.on_step({"sft_step": step, "of": data.steps, **metrics})
            stop_requested = self._stop_requested()
            if (stop_requested or step % SFT_SAVE_STEPS == 0) and step < data.steps:
                self._save(f"sft-{step:06d}", optimizer)
                if stop_requested:
                    raise KeyboardInterrupt
        self.learner.publish()
        self._save("step-000000", None, sft_pairs=data.counts)
        if self._stop_requested():
            raise KeyboardInterrupt

    def _reinforce(self) -> None:
        """Take the policy-gradient steps that are left."""
        config, curriculum = self.config, self.curriculum
        assert config.learning_rate is not None  # since `train`
        optimizer = torch.optim.Adam(self.learner.parameters, lr=config.learning_rate, fused=True)
        reference = self._rl_start.model if config.algorithm.beta else None
        self._before_training("rl")
        stopping = implementing(self.methods, "should_stop")
        if stopping and self._has_no_checkpoint():
            self._save("step-000000", None)  # the result if the first check says stop
        done = self._resume("step", optimizer)
        self.folder.drop_after(done)
        with self.worker:
            for step in range(done + 1, curriculum.steps + 1):
                began = time.monotonic()
                if step == done + 1:
                    self.status("  playing the first batch of episodes")
                metrics = self._step(step, optimizer, reference)
                if curriculum.validates(step):
                    metrics |= self.worker.validate(self.policy)
                stop_requested, due = self._stop_requested(), curriculum.saves(step)
                stops = [method.should_stop(metrics, self.policy.model) for method in stopping] if due else []
                metrics = self.folder.log(metrics, time.monotonic() - began, curriculum.steps)
                self.on_step(metrics)
                if any(stops):
                    break  # the checkpoint before this step is the result
                if due or stop_requested:
                    self._save(f"step-{step:06d}", optimizer, phase_ends=curriculum.ends(step))
                if stop_requested:
                    raise KeyboardInterrupt

    def _step(self, step: int, optimizer: torch.optim.Optimizer, reference: Any) -> Metrics:
        """One policy-gradient step: rollout → advantages → loss → optimizer step (see `policy_gradient.update`)."""
        batch = self.worker.rollout(self.policy, step, self.folder.rows)
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * self.curriculum.learning_rate(step)
        with self._report_checkpoint_on_error():
            learned = update(
                self.learner,
                reference,
                optimizer,
                batch.episodes,
                batch.rewards,
                self.config,
                f"step {step}",
                world=self.world,
                critic=self.critic,
                extra_loss=self._extra_loss(step),
            )
        self.learner.publish()
        return self.worker.metrics(step, batch, learned)

    def _finalize(self) -> Path:
        """Choose the run's result: the last checkpoint, or weights that forgetting methods make of it."""
        # A checkpoint written for Ctrl-C between two regular ones was not checked by `should_stop`.
        regular = [folder for step, folder in checkpoints(self.path) if step == 0 or self.curriculum.saves(step)]
        trained = regular[-1]
        if not (methods := implementing(self.methods, "finalize")):
            return self.folder.finish(trained)
        options = self.config.options("cpu")
        start, weights = (load_model(name, options).state_dict() for name in (self.config.model, trained))
        facts: dict[str, Any] = {"trained": trained.name}
        with self.worker:
            for method in methods:
                weights, more = method.finalize(start, weights, self._success_of)
                facts |= more
        out = self.path / methods[-1].result
        if self.world.first:
            with atomic_folder(out) as aside:
                save_model(self.policy.model, self.policy.tokenizer, aside, weights)
        return self.folder.finish(out, **facts)

    # Forgetting methods, and what they are given.

    @cached_property
    def _base_start(self) -> Start:
        """The policy that the run is given."""
        return Start(
            self.policy,
            lambda: self.learner.start_model() or load_model(self.config.model, self.options),
            self.world,
            self.parallel,
        )

    @cached_property
    def _rl_start(self) -> Start:
        """The policy that policy gradient begins with, which the KL penalty holds to."""
        if self.config.sft is None:
            return self._base_start
        policy = load_local_policy(self.path / "step-000000", self.options)
        return Start(policy, lambda: policy.model, self.world, self.parallel)

    def _before_training(self, stage: str) -> None:
        for method in implementing(self.methods, "before_training"):
            if method.start_at == stage:
                self.status(f"  preparing {method.setting}")
                start = self._base_start if stage == "base" else self._rl_start
                method.before_training(start, self.curriculum.pools.values())
                start.policy.release_memory()

    def _extra_loss(self, step: int) -> Callable[[], Metrics] | None:
        """Return what adds the gradients of the methods' own losses; None where there is none."""
        if not (methods := implementing(self.methods, "extra_loss")):
            return None

        def backward() -> Metrics:
            metrics: Metrics = {}
            for method in methods:
                metrics |= method.extra_loss(self.learner.model, step)
            return metrics

        return backward

    def _success_of(self, weights: Mapping[str, torch.Tensor]) -> float:
        """Return the policy's success on the validation tasks with some weights."""
        self.policy.model.load_state_dict(weights)
        self.policy.clear_cache()
        metrics = self.worker.validate(self.policy)
        if "validation_success" not in metrics:
            raise UsageError("no validation task was played without an error, so no weights can be chosen by them")
        return metrics["validation_success"]

    # Checkpoints and interruption.

    def _resume(self, kind: str, optimizer: torch.optim.Optimizer) -> int:
        """Load the last checkpoint of a kind; return its step, 0 where there is none."""
        if not (saved := checkpoints(self.path, kind)):
            return 0
        step, folder = saved[-1]
        state = read_training_state(folder)
        self.learner.load(load_model(folder, ModelOptions("cpu")).state_dict(), unpack(state, "learner"))
        if flat := unpack(state, "optimizer"):
            load_optimizer(optimizer, flat)
        if self.critic is not None and (flat := unpack(state, "critic")):
            self.critic.load_state(flat)
        return step

    def _save(self, name: str, optimizer: torch.optim.Optimizer | None, **facts: Any) -> None:
        weights, parts = self.learner.weights(), {"learner": self.learner.state()}
        parts["optimizer"] = optimizer_state(optimizer) if optimizer is not None else {}
        if self.world.first:
            if self.critic is not None:
                parts["critic"] = self.critic.state()
            save_checkpoint(self.path, name, self.policy, weights, pack(**parts), facts)
        self.world.barrier()

    def _has_no_checkpoint(self) -> bool:
        """Return whether there is no checkpoint yet, decided together, before a process that is ahead writes one."""
        return bool(self.world.max(int(not checkpoints(self.path))))

    def _stop_requested(self) -> bool:
        """Return whether any process was interrupted."""
        return bool(self.world.max(int(self.interrupt.requested)))

    @contextmanager
    def _report_checkpoint_on_error(self) -> Iterator[None]:
        """Name the last good checkpoint in the error when a loss stops the run."""
        try:
            yield
        except NonFiniteLoss as fault:
            raise NonFiniteLoss(f"{fault}; {last_checkpoint_text(self.path)}") from None
