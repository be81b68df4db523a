"""What is trained, as opposed to what plays: the same module where it can be, another where it must be.

The player is the policy's model, in the number format that it is stored in. What is trained is
- the player itself, stored in fp32, in one process or whole in each of several;
- a copy in fp32, when the player is in bf16 or fp16, whose steps a learning rate of RL is too small for, or when the
  copy is spread over the processes (`distributed.py`);
- low-rank adapters in a frozen copy (LoRA, arXiv 2106.09685), through the peft library, on every linear layer but the
  head; what has none is the player's own.
What is trained, its gradients and Adam's moments are fp32. After an update `publish` copies the weights to the player,
by stochastic rounding where it is in bf16 or fp16 (see `models/device.py`). Left out: checkpoints of adapters alone,
and optimizers that keep less than fp32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from gentax.core import UsageError, stable_seed
from gentax.models.device import autocast_context, kv_cache_bytes, stochastic_round_
from gentax.models.scoring import CHUNK, LARGE_CHUNK, scoring_method
from gentax.models.scoring.batch import MAX_TOKENS
from gentax.policies.local import LocalPolicy
from gentax.training.config import LoraConfig, TrainConfig
from gentax.training.distributed import World, gathered, shard, slice_like, to_save
from gentax.training.forgetting import forgetting_methods

State = dict[str, torch.Tensor]


class Learner:
    """Trains the player itself; the other kinds change what differs.

    All processes of a run call each method together.

    Attributes:
        model: what `log_probabilities` runs and gradients flow through.
        parameters: what an optimiser is made for, in a fixed order; fp32.
    """

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.model: Any = policy.model
        self.parameters: list[Parameter] = [p for p in self.model.parameters() if p.requires_grad]

    def publish(self) -> None:
        """Let the player play with the learner's weights."""
        self.policy.clear_cache()

    def weights(self) -> State:
        """Return the player's weights, as last published, under the names of Hugging Face: no copies."""
        return self.policy.model.state_dict()

    def state(self) -> State:
        """Return what `load` needs beside `weights` to go on as if nothing had happened. What is held in slices only
        the first process returns."""
        return {}

    def load(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        """Go back to what `weights` and `state` returned, and publish it."""
        self.policy.model.load_state_dict(weights)
        self.publish()

    def start_model(self) -> Any | None:
        """Return a model with the weights that the learner was made with, if that costs no memory; else None."""
        return None


def learner_of(
    policy: LocalPolicy,
    config: TrainConfig,
    world: World | None = None,
    *,
    shard: bool = False,
    gradient_checkpointing: bool = False,
) -> Learner:
    """Return what trains `policy`, the player, which has the same weights in every process; see `Footprint`.

    Raises:
        UsageError: a kind of model that cannot be scored.
    """
    scoring_method(policy.model)  # before there are copies of it, which are scored alike
    world = world or World()
    spread = shard and world.size > 1
    learner: Learner
    if config.lora is not None:
        learner = _Adapters(policy, config.lora, config.seed, world, spread)
    elif spread or any(p.dtype is not torch.float32 for p in policy.model.parameters()):
        learner = _Copy(policy, world, spread)
    else:
        learner = Learner(policy)
    if gradient_checkpointing:
        _compute_again(learner.model)
    return learner


class _Copy(Learner):
    """All weights, in fp32, in a model of their own."""

    def __init__(self, policy: LocalPolicy, world: World, spread: bool) -> None:
        super().__init__(policy)
        self._spread = spread
        player = policy.model
        # Slices are cut on the CPU: a whole copy in fp32 need not fit beside the player.
        to = "cpu" if spread else player.device
        self.model = _twin(player, lambda p: Parameter(p.detach().to(to, torch.float32, copy=True)))
        if spread:
            shard(self.model, world.size, player.device)
        masters = dict(self.model.named_parameters(remove_duplicate=False))
        self._pairs = [(name, played, masters[name]) for name, played in player.named_parameters()]
        self.parameters = [master for _, _, master in self._pairs]

    @torch.no_grad()
    def publish(self) -> None:
        for name, played, master in self._pairs:
            stochastic_round_(played, gathered(master), name)
        super().publish()

    def state(self) -> State:
        # In fp32 the player has the learner's very numbers.
        rounded = {name: master for name, played, master in self._pairs if played.dtype is not torch.float32}
        whole = {name: to_save(master.detach()) for name, master in rounded.items()}
        return {name: tensor for name, tensor in whole.items() if tensor is not None}

    @torch.no_grad()
    def load(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        if self._spread:
            self.model.get_decoder().reshard()  # or a pass that had no backward leaves the weights of before together
        for name, _, master in self._pairs:
            master.copy_(slice_like(state.get(name, weights[name]).float(), master))
        self.publish()


class _Adapters(Learner):
    """Low-rank adapters in fp32, in a copy of the model with frozen weights as they are stored."""

    def __init__(self, policy: LocalPolicy, lora: LoraConfig, seed: int, world: World, spread: bool) -> None:
        super().__init__(policy)
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        player = policy.model
        adapted = adapted_layers(player)
        changed = {id(player.get_submodule(name).weight) for name in adapted}

        def frozen(p: Parameter) -> Parameter:
            # What has no adapter never changes, so that it can be the player's; the rest `publish` overwrites there.
            own = p.detach().clone() if id(p) in changed else p.detach()
            return Parameter(p.detach().to("cpu", copy=True) if spread else own, requires_grad=False)

        self.model = _twin(player, frozen)
        self._start = None if spread else _twin(self.model, lambda p: p)
        adapt = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            target_modules=[f"model.{name}" for name in adapted],
            fan_in_fan_out=not isinstance(player.get_submodule(adapted[0]), torch.nn.Linear),  # GPT-2's Conv1D
        )
        devices = [] if self.model.device.type == "cpu" else [self.model.device]
        with torch.random.fork_rng(devices):
            torch.manual_seed(stable_seed(seed, "lora"))
            # Given the model itself, peft would turn the names of some mixtures of experts into those of their tensors.
            inject_adapter_in_model(adapt, torch.nn.ModuleDict({"model": self.model}))
        self.model.eval()
        self._named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = list(self._named.values())
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        if spread:  # adapters are small: every process has all of them
            shard(self.model, world.size, player.device, whole=self.parameters)
        self._pairs = [
            (name, layer, player.get_submodule(name).weight)
            for name, layer in self.model.named_modules()
            if isinstance(layer, LoraLayer)
        ]

    @torch.no_grad()
    def publish(self) -> None:
        # Always from the frozen weights: what is added and taken off again and again would leave its rounding behind.
        for name, layer, played in self._pairs:
            exact = gathered(layer.get_base_layer().weight).float() + layer.get_delta_weight("default")
            stochastic_round_(played, exact, f"{name}.weight")
        super().publish()

    def state(self) -> State:
        return {name: parameter.detach() for name, parameter in self._named.items()}

    @torch.no_grad()
    def load(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        # The merged weights follow from the adapters and the start's weights, which are here already.
        for name, parameter in self._named.items():
            parameter.copy_(state[name])
        self.publish()

    def start_model(self) -> Any | None:
        return self._start


def adapted_layers(model: Any) -> list[str]:
    """Return the names of the layers that LoRA adapts: all linear ones but the head, and but the last of a Mamba
    mixer, whose weights its kernels read past the layer (peft refuses it).

    Raises:
        UsageError: there is none.
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = []
    for name, layer in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0])
        kernel = name.endswith(".out_proj") and hasattr(parent, "A_log") and hasattr(parent, "D")
        if isinstance(layer, (torch.nn.Linear, Conv1D)) and layer is not head and not kernel:
            names.append(name)
    if not names:
        raise UsageError(f"models of type {model.config.model_type} have no linear layer that lora could adapt")
    return names


def _compute_again(model: Any) -> None:
    """Let a model's layers keep nothing but what they are given, and compute the rest again in the backward pass.

    The last layer keeps all, since it is next in the backward pass anyway. transformers' own switch needs a model in
    training mode, with its dropout.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    def forward(whole: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return whole(*args, **kwargs)
        return checkpoint(whole, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    layers = [part for part in model.get_decoder().modules() if isinstance(part, GradientCheckpointingLayer)]
    for layer in layers[:-1]:
        layer.forward = partial(forward, layer.forward)


def _twin(model: Any, parameter: Callable[[Parameter], Parameter]) -> Any:
    """Return a copy of a model, with `parameter(p)` in the place of each parameter p; shared ones stay shared."""
    return copy.deepcopy(model, {id(p): parameter(p) for p in model.parameters()})


SMALL, LARGE = 1.4e6, 8e9  # parameters
RL, SFT = (1.5e-4, 1e-6), (5e-4, 5e-6)  # rates at these sizes
ADAPTERS = 10.0
SHIPPED = 2e6  # parameters; up to here the rates are those of the shipped model


def with_learning_rates(config: TrainConfig, parameters: int) -> TrainConfig:
    """Return the config with the learning rates that it leaves null, for a model of so many parameters."""
    factor = ADAPTERS if config.lora is not None and parameters > SHIPPED else 1.0
    if config.learning_rate is None:
        config = replace(config, learning_rate=_rate(parameters, RL, factor))
    if config.sft is not None and config.sft.learning_rate is None:
        config = replace(config, sft=replace(config.sft, learning_rate=_rate(parameters, SFT, factor)))
    return config


def _rate(parameters: int, ends: tuple[float, float], factor: float) -> float:
    """Return the rate, rounded to two digits."""
    if parameters <= SHIPPED:
        return ends[0]
    share = min(1.0, math.log(parameters / SMALL) / math.log(LARGE / SMALL))
    return float(f"{factor * ends[0] ** (1 - share) * ends[1] ** share:.2g}")


# What a run will hold in memory, computed from a model's configuration before any weight is loaded.
#
# Counted: the player's weights, what is trained with gradients and moments, reference models (all three exact), what
# layers keep for the backward pass (estimated from the widths of their matrices, `KEPT_PER_WIDTH`), logits, and the
# cache of playing, for rows of `CACHED_TOKENS` tokens. Playing and learning take turns, so the larger of the two
# counts; fewer rows are played at a time where memory is short. PyTorch itself takes half a GB more.

KEPT_PER_WIDTH = 1.5  # numbers a layer keeps for a token, for each row and column of its matrices; measured: 1.1 to 1.5
LOGITS = 6  # numbers held for each logit
CACHED_TOKENS = 1024  # tokens
PLAYED_ROWS = 128  # that are played at once, at most
SHARD_ABOVE = 0.8  # of the memory that is left; what several processes would need more of each, they share (FSDP2)
CHECKPOINT_ABOVE = 0.1  # of the memory that is left; where layers would keep more than this, they compute it again
GB = 1e9
CACHE, LEARNING = "cache of playing", ("activations", "logits")  # parts that are not held at the same time


@dataclass(frozen=True)
class Footprint:
    """How a model is trained, and the bytes that takes."""

    parameters: int
    trained: int  # parameters that have gradients
    how: str  # in words
    gradient_checkpointing: bool
    shard: bool  # whether weights, gradients and optimizer state are spread over the processes
    parts: Mapping[str, float]  # bytes, by what they hold
    least_cache: float  # bytes: of the episodes that must be played at once

    @property
    def total(self) -> float:
        """Bytes at the most: what is always held, and what playing or learning takes, whichever is more."""
        return self._with(self.parts.get(CACHE, 0.0))

    @property
    def least(self) -> float:
        """Bytes without which nothing goes: as `total`, where one episode is played at a time unless it is said."""
        return self._with(self.least_cache)

    def _with(self, playing: float) -> float:
        learning = sum(self.parts.get(what, 0.0) for what in LEARNING)
        held = sum(size for what, size in self.parts.items() if what not in (CACHE, *LEARNING))
        return held + max(playing, learning)

    def __str__(self) -> str:
        ways = ", gradient checkpointing" if self.gradient_checkpointing else ""
        ways += ", sharded" if self.shard else ""
        return f"{millions(self.parameters)} parameters, {self.how}{ways}; about {self.total / GB:.1f} GB"

    def held(self) -> str:
        """Return the bytes of each part, largest first."""
        rows = sorted(self.parts.items(), key=lambda row: -row[1])
        return ", ".join(f"{what} {size / GB:.1f}" for what, size in rows if size >= 0.05 * GB)


def parameters_of(model: Any) -> int:
    """Return the number of a model's parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


def footprint(
    model: Any,
    config: TrainConfig,
    device: torch.device,
    left: float,
    processes: int = 1,
    *,
    shard: bool = False,
    parallel: int | None = None,
) -> Footprint:
    """Return what training `model` by a recipe takes in each process.

    Args:
        model: without weights (see `load_meta_model`).
        config: every setting.
        device: where it will be.
        left: bytes that the device has.
        processes: how many train together.
        shard: whether they spread the model over them.
        parallel: episodes in flight at once; None for as many as memory holds.
    """
    numbers, size = parameters_of(model), model.dtype.itemsize
    spread = processes if shard else 1
    parts: dict[str, float] = {"weights": numbers * size}
    copy = numbers * size  # of another model that is not trained
    rounded = f", played in {_named(model.dtype)}" if size < 4 else ""
    if config.lora is not None:
        layers = [model.get_submodule(name) for name in adapted_layers(model)]
        trained = sum(config.lora.r * sum(layer.weight.shape) for layer in layers)
        copied = numbers if spread > 1 else sum(layer.weight.numel() for layer in layers)
        parts["frozen copy"] = copied * size / spread
        parts["adapters, gradients, Adam"] = 16.0 * trained
        how = f"{_named(model.dtype)}; LoRA rank {config.lora.r}: {millions(trained)} trained in fp32{rounded}"
        copy = copy if config.sft is not None or spread > 1 else 0
    else:
        trained = numbers
        if spread > 1 or model.dtype is not torch.float32:
            parts["fp32 masters, gradients, Adam"] = 16 * numbers / spread
            how = f"{_named(model.dtype)}; masters and Adam in fp32{rounded}"
        else:
            parts["gradients, Adam"] = 12 * numbers
            how = "weights and Adam in fp32"
    starts = {method.start_at for method in forgetting_methods(config) if method.keeps_start_model}
    if config.algorithm.beta:
        starts.add("rl")
    if starts:  # fine-tuning makes two of them
        parts["reference"] = copy * (len(starts) if config.sft is not None else 1)
    low = isinstance(autocast_context(config.precision, device), torch.autocast) or size == 2
    whole, again = (
        MAX_TOKENS * (2 if low else 4) * numbers_per_token for numbers_per_token in _activations_per_token(model)
    )
    checkpointing = whole > CHECKPOINT_ABOVE * left
    parts["activations"] = again if checkpointing else whole
    text_config = model.config.get_text_config()
    parts["logits"] = 4.0 * LOGITS * min(CHUNK.get(device.type, LARGE_CHUNK), MAX_TOKENS * text_config.vocab_size)
    rows = min(parallel or PLAYED_ROWS, -(-config.tasks_per_step // processes) * config.num_generations)
    row = kv_cache_bytes(text_config, CACHED_TOKENS, model.dtype)
    parts[CACHE] = rows * row
    parts = {what: part for what, part in parts.items() if part}
    return Footprint(numbers, trained, how, checkpointing, spread > 1, parts, row * min(rows, parallel or 1))


def check_memory(
    model: Any,
    config: TrainConfig,
    device: torch.device,
    left: float,
    processes: int = 1,
    parallel: int | None = None,
) -> Footprint:
    """Return what a run will hold (see `footprint`).

    Processes share a model that takes more than `SHARD_ABOVE` of what each of them has.

    Raises:
        UsageError: there is no room; with the numbers.
    """
    need = footprint(model, config, device, left, processes, parallel=parallel)
    if shard := processes > 1 and need.least > SHARD_ABOVE * left:
        need = footprint(model, config, device, left, processes, shard=True, parallel=parallel)
    if need.least <= left:
        return need
    ways = []
    if config.lora is None:
        lora = replace(config, lora=LoraConfig())
        less = footprint(model, lora, device, left, processes, shard=shard, parallel=parallel)
        ways.append(f"-s lora.r=16 takes about {less.least / GB:.1f} GB")
    ways.append(f"{'more' if shard else 'several'} processes under torchrun share it")
    raise UsageError(
        f"training {config.model} takes about {need.least / GB:.1f} GB ({need.held()}), and {device} has "
        f"{left / GB:.1f} GB left; {'; '.join(ways)}"
    )


def millions(count: int) -> str:
    """Write a number of parameters."""
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _named(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}.get(dtype, str(dtype))


def _activations_per_token(model: Any) -> tuple[float, float]:
    """Return the numbers kept for a token of a batch: by all layers, and where they are computed again."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    hidden = model.get_input_embeddings().weight.shape[1]
    layers = [part for part in model.get_decoder().modules() if isinstance(part, GradientCheckpointingLayer)]
    text_config = model.config.get_text_config()
    chosen = getattr(text_config, "num_experts_per_tok", None) or 1
    each = []
    for layer in layers:
        # An expert's matrices are read by its share of the tokens: all experts together by `chosen` of them.
        shapes = [(chosen if p.ndim == 3 else 1, p.shape[-2:]) for p in layer.parameters() if p.ndim > 1]
        each.append(KEPT_PER_WIDTH * sum(times * sum(shape) for times, shape in shapes))
    if not each:
        return (whole := KEPT_PER_WIDTH * sum(sum(p.shape) for p in model.parameters() if p.ndim > 1)), whole
    return sum(each), max(each) + len(layers) * hidden * 2
