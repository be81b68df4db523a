"""Every setting of a training run, documented where it stands."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace

from gentax.core import UsageError
from gentax.models.requests import PRECISIONS, ModelOptions
from gentax.rollouts.prompt import RolloutConfig
from gentax.training.config.curriculum import CurriculumConfig, Phase
from gentax.training.config.exploration import ExplorationConfig
from gentax.training.config.forgetting import ForgettingConfig, LoraConfig
from gentax.training.config.mix import shares
from gentax.training.config.policy_gradient import PolicyGradientConfig
from gentax.training.config.ranges import at_least, choice, positive
from gentax.training.config.reward import RewardConfig
from gentax.training.config.sft import SFTConfig

RUN_FORMAT = 2  # raised when the files of a run's folder mean something else than before
TRAINERS = ("gentax", "trl")
VALIDATION_TEMPERATURE = 0.4  # that of the paper's evaluations


@dataclass(frozen=True)
class TrainConfig:
    """Training of one policy, from its start to its last checkpoint. Every setting goes with every other, except
    where two contradict each other, which is refused by name."""

    source: str = "sokoban"
    """The domain trained on, where `curriculum.phases` says nothing else."""
    level: str | None = None
    """Its level; the domain's default when null."""
    max_steps: int = 100
    """Policy-gradient steps, each on fresh episodes, where `curriculum.phases` says nothing else; 0 for none, after
    `sft`."""
    model: str = "base"
    """The policy to start from: `base` for the one that ships with gentax, a folder, a hub's
    `org/name[@revision]`, an adapter's folder, or a `.gguf` file."""
    seed: int = 0
    """Which tasks are drawn, and every sampled token."""
    tasks_per_step: int = 16
    """Groups in a step; every group plays one task."""
    num_generations: int = 8
    """Episodes on each task."""
    learning_rate: float | None = None
    """Peak learning rate of Adam: reached after `warmup_steps`, then lowered linearly to 0 at the last step. When null,
    by the number of parameters: 1.5e-4 up to 2 M, 7e-6 at 270 M, 1e-6 from 8 B on, and between them on a line over the
    logarithms of both; above 2 M ten times that with `lora`. The run says which, and its `recipe.json` has it."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises from 0."""
    rollout: RolloutConfig = field(default_factory=lambda: RolloutConfig(temperature=0.7))
    """How episodes are played while training. At temperature 1 (the paper's) small models slip too often to succeed."""
    sft: SFTConfig | None = None
    """Supervised training before the first step; none when null."""
    algorithm: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    """How episodes become a gradient."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What is added to the environment's rewards."""
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    """How training meets what the policy would not do by itself."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """What is trained on, and when."""
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    """What keeps the other domains from being forgotten."""
    lora: LoraConfig | None = None
    """Adapters to train instead of the weights; the weights themselves when null. Checkpoints hold merged weights."""
    held_out_domains: tuple[str, ...] = ()
    """Domains that training must not touch: a recipe that names one of them elsewhere is refused."""
    train_tasks: int = 4096
    """Tasks of the train split that are drawn from, in each domain; all of them where the split has fewer."""
    eval_steps: int = 25
    """Steps between two validations; 0 for never. Nothing but `forgetting.interpolate` is decided by them."""
    eval_tasks: int = 64
    """Tasks of the validation split, of each domain trained on. It shares no content with `train` or `test`."""
    eval_rollout: RolloutConfig | None = None
    """How they are played; when null as in training, but without wrappers, at the domain's sparse reward and at
    temperature 0.4."""
    save_steps: int = 25
    """Steps between two checkpoints; those at the end of a phase are kept beside."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast) or `auto`, which is bf16 where the hardware has it."""
    gradient_checkpointing: bool | None = None
    """Whether what layers computed is computed again in the backward pass instead of being kept: a quarter more time,
    and a fraction of the memory. When null, where it would take more than a tenth of the memory that the device has
    left."""
    device: str = "auto"
    """Where the model is: `cpu`, `cuda`, `cuda:1` …; `auto` takes a GPU where there is one."""
    dtype: str = "auto"
    """The number format that models are loaded in, play in and are saved in: `auto` is the one they are stored in, or
    `float32`, `bfloat16`, `float16`. `precision` is that of the arithmetic."""
    adapter_base: str | None = field(default=None, metadata={"omit_default": True})
    """The model that `model`, an adapter's folder, is for, where its own configuration names none or another place."""
    parallel: int | None = None
    """Episodes in flight at once; when null, as many as memory holds, 128 at most. A stopped run may be continued with
    another number: what is played does not depend on it, but for rounding."""
    shard: bool = False
    """Whether weights, gradients and optimiser state are spread over the processes of the run (FSDP2) instead of held
    whole by each (data parallel); one process holds them whole in any case."""
    trainer: str = "gentax"
    """`gentax`, or `trl`: gentax plays, TRL's GRPOTrainer optimises."""
    vllm_server_base_url: str | None = None
    """With `trl`: the address of a vLLM server that plays in place of this process, such as `http://localhost:8000`.
    TRL sends it the new weights after each update. It runs on GPUs of its own and was started, as TRL asks for, by
    `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode
    processed_logprobs`."""

    def __post_init__(self) -> None:
        positive(recipe=self, names=("tasks_per_step", "train_tasks", "save_steps", "eval_tasks"))
        at_least(0, recipe=self, names=("max_steps", "warmup_steps", "eval_steps"))
        if self.parallel is not None:
            at_least(1, recipe=self, names=("parallel",))
        if self.learning_rate is not None:
            positive(recipe=self, names=("learning_rate",))
        choice("precision", self.precision, PRECISIONS)
        choice("trainer", self.trainer, TRAINERS)
        if self.rollout.temperature == 0:
            raise UsageError("recipe: rollout.temperature is 0; without chance all episodes of a group are the same")
        for refused, why in self._contradictions():
            if refused:
                raise UsageError(f"recipe: {why}")

    def options(self, device: str = "auto") -> ModelOptions:
        """Return how `model` is loaded on a device."""
        return ModelOptions(device, self.dtype, self.adapter_base)

    def identity(self) -> TrainConfig:
        """Return the recipe without what may change while a run is stopped."""
        return replace(self, parallel=None)

    def phases(self) -> tuple[Phase, ...]:
        """Return what is trained on, phase after phase; none where `max_steps` is 0."""
        if self.curriculum.phases or not self.max_steps:
            return self.curriculum.phases
        return (Phase({self.source if self.level is None else f"{self.source}:{self.level}": 1.0}, self.max_steps),)

    @property
    def updates(self) -> int:
        """Policy-gradient steps in all."""
        return sum(phase.max_steps for phase in self.phases())

    @property
    def trained(self) -> tuple[str, ...]:
        """What policy gradient trains on, each `domain` or `domain:level` once."""
        return tuple(dict.fromkeys(name for phase in self.phases() for name in phase.shares))

    @property
    def imitated(self) -> dict[str, float]:
        """What is imitated, with shares that sum to 1; nothing where `sft` is null. Where it names no mixture, what
        is trained on, each part of a phase weighed by the phase's steps."""
        if self.sft is None:
            return {}
        mix = Counter[str](self.sft.mixture)
        if not mix:
            for phase in self.phases():
                mix.update({name: phase.max_steps * share for name, share in phase.shares.items()})
        return shares(mix)

    @property
    def others(self) -> tuple[tuple[str, str], ...]:
        """Whom the recipe names beside `model`, as (what they are, their name): teachers, and the judge."""
        teachers = tuple(("teacher", who) for who in (self.sft.teachers.values() if self.sft else ()))
        return teachers if self.reward.judge is None else (*teachers, ("reward.judge", self.reward.judge))

    def looking(self) -> RolloutConfig:
        """Return how validation tasks are played."""
        if self.eval_rollout is not None:
            return self.eval_rollout
        return replace(self.rollout, temperature=VALIDATION_TEMPERATURE, wrap=(), reward="sparse")

    def _contradictions(self) -> list[tuple[bool, str]]:
        """Return (whether it is so, what is wrong) for each pair of settings that cannot both hold."""
        alone = ("grpo", "rloo", "gigpo")
        default = {f.name: f.default for f in fields(self)}
        phases = bool(self.curriculum.phases)
        mixture = max((len(phase.mixture) for phase in self.phases()), default=0)
        return [
            (
                self.num_generations < 2 and self.algorithm.advantage_estimator in alone,
                f"num_generations must be at least 2 with {self.algorithm.advantage_estimator}, which compares the "
                "episodes of a group",
            ),
            (self.num_generations < 1, f"num_generations must be at least 1, not {self.num_generations}"),
            (
                bool(self.reward.think_length) and not self.rollout.thinking,
                "reward.think_length pays for thoughts, and rollout.thinking is off",
            ),
            (
                phases and any(getattr(self, name) != default[name] for name in ("source", "level", "max_steps")),
                "curriculum.phases say what is trained on and how long; leave out source, level and max_steps",
            ),
            (
                bool(self.curriculum.replay) and len(self.curriculum.phases) < 2,
                "curriculum.replay draws from earlier phases, and there is only one",
            ),
            (
                self.curriculum.adaptive and mixture < 2,
                "curriculum.adaptive chooses among the parts of a mixture, and there is only one part",
            ),
            (
                bool(self.exploration.hints or self.exploration.expert_prefix) and not self.exploration.until,
                "exploration.until is 0, so there would be no hint and no head start",
            ),
            (
                self.forgetting.merge is not None and (mixture < 2 or len(self.phases()) > 1),
                "forgetting.merge joins the policies of one mixture of two domains or more",
            ),
            (
                self.forgetting.merge is not None and self.curriculum.adaptive,
                "forgetting.merge trains each part of the mixture by itself; curriculum.adaptive has nothing to choose",
            ),
            (
                self.curriculum.replay == 1,
                "curriculum.replay is 1, so that later phases would never play what they are for",
            ),
            (
                bool(self.exploration.count_bonus) and any(text.startswith("distract") for text in self.rollout.wrap),
                "exploration.count_bonus pays for new observations, and distractors make every observation new",
            ),
            (
                self.forgetting.kl_budget is not None and not phases and not self.max_steps,
                "forgetting.kl_budget ends the policy-gradient steps, and there is none",
            ),
            (
                bool(self.forgetting.replay_domains) and not self.forgetting.replay,
                "forgetting.replay_domains are named, and forgetting.replay is 0",
            ),
            (not self.max_steps and not phases and self.sft is None, "max_steps is 0 and sft is null: nothing to do"),
            (
                self.rollout.reward == "shaped" and self.algorithm.gamma != 1,
                "rollout.reward shaped keeps the best policy the best only where algorithm.gamma is 1; "
                f"for this one write rollout.wrap: ['shaping(gamma={self.algorithm.gamma:g})']",
            ),
            (
                any(
                    getattr(self.rollout, name) != getattr(RolloutConfig(), name)
                    for name in ("top_p", "top_k", "min_p")
                ),
                "rollout.top_p, top_k and min_p must be off: what is learned scores the whole distribution",
            ),
            (
                self.vllm_server_base_url is not None and self.rollout.action_format != "tags",
                "vllm_server_base_url stops at </action>, so rollout.action_format must be tags",
            ),
            (
                self.vllm_server_base_url is not None and self.trainer != "trl",
                "vllm_server_base_url is for trainer trl alone",
            ),
            (
                self.trainer == "trl" and self.algorithm.advantage_estimator not in ("grpo", "rloo"),
                f"trainer trl computes grpo and rloo, not {self.algorithm.advantage_estimator}",
            ),
        ]
