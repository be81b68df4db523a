"""TRL's GRPOTrainer as the trainer: gentax plays the episodes and computes their advantages, TRL learns from them.

gentax's: the curriculum, rewards, advantages, tokens and their log-probabilities; metrics, checkpoints, Ctrl-C. TRL's:
the loop over batches, the reference, the loss and its gradient, mixed precision, and through accelerate DDP and
DeepSpeed (ZeRO 1 to 3): `accelerate launch --no_python gentax train RECIPE -s trainer=trl`. A copy of the model plays;
it gets the whole weights before each rollout. A vLLM server may play instead: TRL sends it the new weights after each
update. It runs on GPUs of its own and was started, as TRL asks for, by `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL
--weight-transfer-config '{"backend": "nccl"}' --logprobs-mode processed_logprobs`.

TRL compares neighbours in a batch of fixed size. Here an episode is as many sequences as its context makes of it, so
the advantages of `policy_gradient.py` are inserted, with the log-probabilities of the rollout as the old ones, and
sequences without advantage are left out. TRL's loss is a mean over tokens (`dapo`): a weight for each token makes it
one over sequences.

Refused by name: supervised fine-tuning, forgetting methods, FSDP (it has no whole weights to play with), and continuing
a stopped run of DeepSpeed (its optimizer state is in shards). TRL's telemetry is off.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, UsageError, stable_seed
from gentax.core.files import atomic_folder
from gentax.core.imports import install_command, require
from gentax.core.process import Interrupt, deferred_interrupt
from gentax.models.device import available_memory, has_native_bf16, resolve_device, stochastic_round_
from gentax.models.source import find_model
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.training.config import TrainConfig
from gentax.training.distributed import World, join
from gentax.training.forgetting import forgetting_methods
from gentax.training.learner import adapted_layers, check_memory
from gentax.training.policy_gradient import EPSILON, advantage_metrics, compute_advantages, what_exploded
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
    save_checkpoint,
    save_model,
    unpack,
)
from gentax.training.trl_server import ServerDecoder, client_of

PINNED = "1.16.0"  # `rollout_func` is experimental there, and what is overridden below is TRL's own affair
EPISODES = 8  # in one forward pass, about; TRL's own default
CLIPPED = "clip_ratio/region_mean"  # TRL's name for it
LOGGED = {"loss": "loss", "kl": "kl", "entropy": "entropy", "clipped": CLIPPED, "grad_norm": "grad_norm"}


def refuse(config: TrainConfig, device: str, server: str | None) -> None:
    """Refuse what TRL cannot do, or is not there to do, before anything is loaded.

    Raises:
        UsageError: supervised fine-tuning, a forgetting method, one GPU of several, or several with one process; a
            server and another action format, or no vLLM to talk to it; TRL is not installed, or in another version.
    """
    if config.sft is not None:
        raise UsageError(
            "recipe: trainer trl cannot do sft: do it with trainer gentax and max_steps 0, then start there"
        )
    if methods := forgetting_methods(config):
        raise UsageError(f"recipe: trainer trl cannot do {methods[0].setting}: it calls no forgetting methods")
    if device.startswith("cuda:"):
        raise UsageError(
            f"trainer trl cannot do device {device}: accelerate places the model; say cuda, and which one by "
            "CUDA_VISIBLE_DEVICES"
        )
    if device != "cpu" and torch.cuda.device_count() > 1 and "LOCAL_RANK" not in os.environ:
        raise UsageError(
            "trainer trl has one process for each GPU: start it with `accelerate launch --no_python gentax train …`, "
            "or show it one GPU by CUDA_VISIBLE_DEVICES"
        )
    if server is not None:
        if config.rollout.action_format != "tags":
            raise UsageError("vllm_server_base_url stops at </action>, so rollout.action_format must be tags")
        require("vllm", "vllm_server_base_url", "trl[vllm]")
    require("trl", "trainer trl")
    if (have := version("trl")) != PINNED:
        raise UsageError(f"trainer trl needs TRL {PINNED}, and {have} is installed: {install_command('gentax[trl]')}")


def train_with_trl(
    config: TrainConfig,
    run: Path,
    bare: Any,
    on_step: Callable[[Metrics], None],
    device: str,
    parallel: int | None,
    server: str | None,
) -> Path:
    """Train a policy with TRL; return its last checkpoint. Rows, checkpoints and Ctrl-C are those of `train`.

    A stopped run goes on as it would have, bit for bit where the arithmetic allows it; not under DeepSpeed.

    Args:
        config: the recipe, whose domains were checked.
        run: the run's folder.
        bare: the model without weights.
        on_step: called with each step's metrics: those of `rollout_worker.py`, and of the update spread, loss, kl,
            entropy, clipped and grad_norm.
        device, parallel: see `train`.
        server: the address of a vLLM server that plays.

    Raises:
        UsageError: what `refuse` refuses; a folder of another run; a model without room; a server that gives other
            probabilities than those it samples from.
        NonFiniteLoss: the loss stopped being a number; the message names the step and the last good checkpoint.
    """
    refuse(config, device, server)
    if "LOCAL_RANK" not in os.environ:  # alone; how DeepSpeed spreads a model over processes is not counted
        place = resolve_device(device)
        check_memory(bare, config, place, available_memory(place), parallel=parallel)  # TRL takes no less
    with _silence_warnings(), join(device) as world, deferred_interrupt() as interrupt:
        # Before TRL's settings are made: with ZeRO-3 all models that are loaded later are sharded, and this one plays.
        player = load_local_policy(config.model, config.options(str(resolve_device(device, world.local, world.size))))
        return _Run(config, run, player, world, on_step, interrupt, parallel, server).complete()


class _Run:
    """One run in progress. TRL calls `rollout` for the episodes of a step, and `on_step_end` after its update."""

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        player: LocalPolicy,
        world: World,
        on_step: Callable[[Metrics], None],
        interrupt: Interrupt,
        parallel: int | None,
        server: str | None,
    ) -> None:
        from accelerate.utils import DistributedType

        self.config, self.path, self.player, self.world = config, path, player, world
        self.on_step, self.interrupt, self.server = on_step, interrupt, server
        self.curriculum = Curriculum(config)
        episodes = math.ceil(config.tasks_per_step / world.size) * config.num_generations  # episodes of one process
        self.batches = math.ceil(episodes / EPISODES)  # forward passes in a step
        self.saved = checkpoints(path)
        self.step = self.done = self.saved[-1][0] if self.saved else 0
        self.args = self._arguments()
        kind = self.args.distributed_state.distributed_type
        if kind == DistributedType.FSDP:
            raise UsageError("trainer trl cannot play with weights sharded by FSDP: use DDP or DeepSpeed")
        self.sharded = kind == DistributedType.DEEPSPEED
        if self.sharded and self.saved:
            raise UsageError(
                f"a run of DeepSpeed cannot be continued; give another folder, or model={self.saved[-1][1]}"
            )
        self.folder = RunFolder.open(path, config, world)
        self.worker = RolloutWorker(config, self.curriculum, world, str(player.model.device), parallel)

    def complete(self) -> Path:
        """Do what is left of the run; return the folder of its result."""
        if self.done == self.curriculum.steps:
            return self.folder.finish(self.saved[-1][1])
        self.folder.drop_after(self.done)
        self.trainer = self._trainer()
        if self.server is not None:
            self.player.decoder = ServerDecoder(client_of(self.trainer, self.server), self.player.decoder.max_length)
        self.state = read_training_state(self.saved[-1][1]) if self.saved else {}
        self.trainer.model.load_state_dict(unpack(self.state, "trained"), strict=False)
        with self.worker:
            self.began = time.monotonic()
            self.trainer.train()
        return self.folder.finish(checkpoints(self.path)[-1][1])

    # What TRL calls.

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """Play the groups of the next step; return their sequences as TRL wants them (the prompts say nothing).

        Every process returns the same number of sequences, and one that its forward passes share evenly.
        """
        config, world = self.config, self.world
        self.step += 1
        self._publish()
        self.batch = self.worker.rollout(self.player, self.step, self.folder.rows)
        episodes = self.batch.episodes
        self.advantages = compute_advantages(episodes, self.batch.rewards, config.algorithm, world)
        rows = sequences(episodes, self.advantages, config.algorithm.loss_aggregation)
        longest = world.max(len(rows))
        self.has_advantage = longest > 0
        rows += [PADDING] * (self.batches * math.ceil(max(1, longest) / self.batches) - len(rows))
        self.advantages_R = [row["advantage"] for row in rows]
        # TRL shuffles the sequences by the global generator; seeded here, it does so alike in a continued run.
        torch.manual_seed(stable_seed(config.seed, "shuffle", self.step))
        return {key: [row[key] for row in rows] for key in PADDING if key != "advantage"}

    def insert_advantages(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return TRL's batch with our advantages, shape (sequences, longest completion), and old probabilities."""
        old_RT = batch["sampling_per_token_logps"]
        advantage_RT = torch.zeros_like(old_RT)
        for row, advantage in zip(advantage_RT, self.advantages_R, strict=True):
            row[: len(advantage)] = torch.tensor(advantage)
        return batch | {"advantages": advantage_RT, "old_per_token_logps": old_RT}

    def on_step_end(self, logs: Mapping[str, float]) -> None:
        """Log the metrics of a step, and write its checkpoint where one is due."""
        world, step = self.world, self.step
        learned = {key: float(logs[trl_key]) for key, trl_key in LOGGED.items() if logs.get(trl_key) is not None}
        if exploded := what_exploded(learned):
            raise NonFiniteLoss(f"{exploded} at step {step}; {last_checkpoint_text(self.path)}")
        learned |= advantage_metrics(self.batch.episodes, self.advantages, world)
        metrics = self.worker.metrics(step, self.batch, learned)
        if self.curriculum.validates(step):
            self._publish()
            metrics |= self.worker.validate(self.player)
        now = time.monotonic()
        metrics, self.began = self.folder.log(metrics, now - self.began, self.curriculum.steps), now
        if world.first:
            self.on_step(metrics)
        stop_requested = bool(world.max(int(self.interrupt.requested)))
        if stop_requested or self.curriculum.saves(step):
            self._save()
        if stop_requested:
            raise KeyboardInterrupt

    # What they need.

    def _publish(self) -> None:
        """Copy the weights to the player, or the server."""
        if self.server is None:
            self._copy()
        elif self.trainer._last_loaded_step != self.trainer.state.global_step:  # else TRL has sent them
            self.trainer.vllm_generation.sync_weights()
            self.trainer._last_loaded_step = self.trainer.state.global_step

    def _copy(self) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        with self.trainer._dist.gather_params(list(model.parameters())):
            copy_weights(model, self.player.model)
        self.player.clear_cache()

    def _save(self) -> None:
        self._copy()
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if self.world.first:
            # Whole weights are in the player's number format; what is trained is kept as it is, to go on from.
            state = {}
            if not self.sharded:
                trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
                state = pack(trained=trained, optimizer=optimizer_state(self.trainer.optimizer))
            save_checkpoint(
                self.path,
                f"step-{self.step:06d}",
                self.player,
                self.player.model.state_dict(),
                state,
                {"step": self.step, "phase_ends": self.curriculum.ends(self.step), "trainer": f"trl {PINNED}"},
            )
        self.world.barrier()

    def _arguments(self) -> Any:
        """Return TRL's settings for the recipe's."""
        from trl import GRPOConfig

        config, algorithm = self.config, self.config.algorithm
        kind = self.player.model.device.type
        return GRPOConfig(
            output_dir=str(self.path),
            use_cpu=kind == "cpu",
            bf16=config.precision == "bf16" or (config.precision == "auto" and has_native_bf16(kind)),
            gradient_checkpointing=kind != "cpu",
            seed=config.seed,
            # A nominal batch: what is learned from is as long as what was played.
            per_device_train_batch_size=EPISODES,
            num_generations=2,
            steps_per_generation=self.batches,
            gradient_accumulation_steps=self.batches,
            max_steps=max(1, self.curriculum.steps - self.done),
            temperature=config.rollout.temperature,
            loss_type="dapo",
            epsilon=EPSILON,
            beta=algorithm.beta,
            use_bias_correction_kl=False,  # the plain k3 estimator, as in `policy_gradient.py`
            entropy_coef=algorithm.entropy_coef,
            scale_rewards="none",
            disable_dropout=True,
            ddp_find_unused_parameters=False,
            optim="adamw_torch_fused",
            learning_rate=config.learning_rate,
            weight_decay=0.0,
            max_grad_norm=1.0,
            shuffle_dataset=False,
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            use_vllm=self.server is not None,
            vllm_mode="server",
            vllm_server_base_url=self.server,
            vllm_importance_sampling_correction=False,  # the ratio is to the server's probabilities already
        )

    def _trainer(self) -> Any:
        """Return TRL's trainer, with the four things of ours that it calls."""
        from datasets import Dataset
        from torch.optim.lr_scheduler import LambdaLR
        from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
        from trl import GRPOTrainer

        run = self

        class Trainer(GRPOTrainer):
            def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
                return run.insert_advantages(super()._generate_and_score_completions(inputs))

            def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
                if self.lr_scheduler is None:
                    rate = lambda update: run.curriculum.learning_rate(run.done + update + 1)  # noqa: E731
                    self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, rate)
                    self._created_lr_scheduler = True
                return self.lr_scheduler

            def _send_telemetry(self) -> None:
                pass

        class Callbacks(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                if flat := unpack(run.state, "optimizer"):
                    load_optimizer(run.trainer.optimizer, flat)

            def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
                if not run.has_advantage:
                    run.trainer.optimizer.zero_grad()  # without gradients Adam rests; with zeros it would coast

            def on_log(self, *_: Any, logs: Mapping[str, float], **__: Any) -> None:
                if "loss" in logs:  # else it is TRL's summary of the whole run
                    run.on_step_end(logs)

        start = self._start()  # TRL loads the reference from there too
        rows = EPISODES * self.args.world_size * self.batches // 2
        trainer = Trainer(
            model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, use_safetensors=True),
            reward_funcs=lambda prompts, **_: [0.0] * len(prompts),
            args=self.args,
            train_dataset=Dataset.from_dict({"prompt": [""] * rows}),
            processing_class=AutoTokenizer.from_pretrained(start),  # TRL may give it a token for padding
            peft_config=self._adapters(),
            callbacks=[Callbacks()],
            rollout_func=self.rollout,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _start(self) -> str:
        """Return the folder that TRL loads the model from; what is merged or unpacked is written for it."""
        source = find_model(self.config.model, self.config.options())
        if source.kind == "folder":
            return str(source.path)
        folder = self.path / "start"
        if self.world.first and not folder.exists():
            with atomic_folder(folder) as aside:
                save_model(self.player.model, self.player.tokenizer, aside)
        self.world.barrier()
        return str(folder)

    def _adapters(self) -> Any:
        if self.config.lora is None:
            return None
        from peft import LoraConfig

        lora, layers = self.config.lora, adapted_layers(self.player.model)
        return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=layers, task_type="CAUSAL_LM")


# One token that nothing is learned from. It stands for what has no advantage, and fills batches up.
PADDING: Mapping[str, list[float]] = {
    "prompt_ids": [0],
    "completion_ids": [0],
    "logprobs": [0.0],
    "env_mask": [0.0],
    "advantage": [0.0],
}


def sequences(
    episodes: Sequence[Episode], advantages: Sequence[np.ndarray], loss_aggregation: str
) -> list[dict[str, list[float]]]:
    """Return what TRL learns from: a mapping for each sequence that has an advantage.

    What stands before the first sampled token is the prompt. `env_mask`, by which TRL weighs the tokens of its mean,
    is 0 for what was not sampled, else 1 for aggregation by token, and 1 over the number of the sequence's sampled
    tokens for aggregation by sequence.
    """
    rows = []
    for episode, advantage_N in zip(episodes, advantages, strict=True):
        for tokens in episode.sequences() if advantage_N.any() else ():
            sampled_T, advantage_T = tokens.sampled_T, advantage_N[tokens.step_T]
            if not advantage_T[sampled_T].any():
                continue
            start = int(np.flatnonzero(sampled_T)[0])
            weight = 1.0 / int(sampled_T.sum()) if loss_aggregation == "sequence" else 1.0
            rows.append(
                {
                    "prompt_ids": tokens.ids_T[:start].tolist(),
                    "completion_ids": tokens.ids_T[start:].tolist(),
                    "logprobs": tokens.logprobs_T[start:].tolist(),
                    "env_mask": (sampled_T[start:] * weight).tolist(),
                    "advantage": advantage_T[start:].tolist(),
                }
            )
    return rows


@torch.no_grad()
def copy_weights(model: Any, player: Any) -> None:
    """Copy a model's weights into another one's, in place; adapters of the first are merged in the copy alone."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    for name, own in player.named_parameters():
        path, _, leaf = name.rpartition(".")
        module = base.get_submodule(path)
        if hasattr(module, "get_delta_weight"):
            weight = getattr(module.base_layer, leaf)
            if leaf == "weight":
                weight = weight + module.get_delta_weight("default")
        else:
            weight = getattr(module, leaf)
        stochastic_round_(own, weight.to(own.device, torch.float32), name)


@contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silence warnings of TRL and transformers about changes in other versions: TRL's is pinned."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
