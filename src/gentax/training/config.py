"""The settings of a training run: `TrainConfig` and its groups, read from a recipe, a YAML file of settings.

What nobody would turn is a constant beside the code that reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gentax.core import UsageError, unknown
from gentax.core.settings import Mixture, Share, read_yaml, settings, shares
from gentax.models.requests import ModelOptions
from gentax.rollouts.prompt import RolloutConfig

RECIPES = Path(__file__).parent / "recipes"  # those that come with the package, by name
RUN_FORMAT = 2  # raised when the files of a run's folder mean something else than before
VALIDATION_TEMPERATURE = 0.4  # that of the paper's evaluations


@settings
class SFTConfig:
    """Supervised fine-tuning on the agent's tokens, before the first policy-gradient step (warm-up, mid-training)."""

    mixture: Mixture = field(default_factory=dict)
    """What is imitated: `domain` or `domain:level`, and its share of the state-action pairs. The paper's second start
    has {sciworld: 19, alfworld: 3, webshop: 1}. When empty, what is trained on afterwards."""
    teachers: dict[str, str] = field(default_factory=dict)
    """Who played, by the names in `mixture`: `expert`; `start`, the policy the run starts from; a model, named as
    `model` is, or a URL; or a file of trajectories: chats in JSONL, AgentTraj's format, gentax's own episodes (see
    `gentax.training.trajectories`). The expert by default."""
    successes_only: bool = True
    """Whether episodes that did not succeed are left out. The paper left its policy's own in."""
    max_pairs: PositiveInt = 4000
    """State-action pairs in all, each a prompt and the reply to it; fewer where a teacher has no more. A step learns
    32 of them, as in the paper, and whole conversations at a time."""
    num_train_epochs: PositiveFloat = 1.0
    """How often each is learned from; a part of them where this is no whole number."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of AdamW; warmed up over 3 % of the steps, then lowered along a cosine to a twentieth. When
    null, by the number of parameters, as `learning_rate` of the recipe: 5e-4 up to 2 M, 3e-5 at 270 M, 5e-6 from 8 B
    on; above 2 M ten times that with `lora`."""


@settings
class PolicyGradientConfig:
    """The policy-gradient method: which advantage, which loss."""

    advantage_estimator: Literal["grpo", "rloo", "reinforce++", "ppo", "gigpo"] = "grpo"
    """What an episode is compared with: `grpo`, the mean of its group; `rloo`, the mean of the others in its group;
    `reinforce++`, the whole batch; `ppo`, a learned value of each state; `gigpo`, its group and, at each state that the
    group met more than once, the other ways on from there."""
    normalize_std: bool = False
    """Whether advantages are divided by the standard deviation of what they were compared with. Where a group differs
    in nothing but invalid actions, that makes as much of them as of success. `reinforce++` and `ppo` always divide."""
    loss_aggregation: Literal["token", "sequence"] = "token"
    """What weighs the same in the loss: every sampled `token`, or every `sequence` (an episode with context `full`)."""
    epsilon: NonNegativeFloat = 0.2
    """How far the ratio of new to old probability may fall below 1 before its gradient is cut (PPO's clip range)."""
    epsilon_high: float | None = None
    """How far it may rise above 1; `epsilon` when null. More than `epsilon` keeps unlikely tokens alive (DAPO)."""
    beta: NonNegativeFloat = 0.01
    """Weight of the KL divergence to the starting policy."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where it stands: in the `loss` (k3 estimator) or taken from the `reward` (log-ratio of each sampled token)."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the mean entropy of the sampled tokens' distributions, which is added to the objective."""
    minibatches: PositiveInt = 1
    """Updates made from the episodes of one step."""
    gamma: Share = 1.0
    """Discount of later rewards: a step's return in `ppo` and in the step groups of `gigpo`, whose paper has 0.95."""
    gae_lambda: Share = 0.95
    """Lambda of generalized advantage estimation, over the steps of an episode; `ppo` alone reads it."""

    def __post_init__(self) -> None:
        if self.epsilon_high is not None and self.epsilon_high < self.epsilon:
            high, low = self.epsilon_high, self.epsilon
            raise UsageError(f"recipe: algorithm.epsilon_high must be at least {low:g}, the epsilon, not {high:g}")


@settings
class RewardConfig:
    """What is added to the environment's rewards (`rollout.reward`: sparse, dense or shaped); a success pays 1."""

    invalid_penalty: NonNegativeFloat = 0.02
    """Taken for each action that cannot be read or is refused (the paper: 0.1, where a success pays 10). A reply that
    is cut off before its action pays it too: a policy should come to its action within its budget."""
    think_length: float = 0.0
    """Paid for every 100 words that the policy thinks; below 0 it makes thoughts shorter."""
    judge: str | None = None
    """A policy that reads each finished episode and scores it from 0 to 1, which is paid: the URL of an
    OpenAI-compatible server, such as `http://localhost:8000/v1#model`, a model as `model` names one, or a policy of
    your own, `module:policy`."""


@settings
class ExplorationConfig:
    """Exploration and guidance while training; evaluation has none of it."""

    temperature_end: PositiveFloat | None = None
    """Sampling temperature at the last step, reached on a line from `rollout.temperature`; null keeps that."""
    count_bonus: NonNegativeFloat = 0.0
    """Paid for a step into an observation, divided by the square root of how often its group met it."""
    hints: Share = 0.0
    """Share of the prompts, at the first step of the run, that tell what the domain's expert would do next. It falls
    to nothing on a line, over the first half of the run."""
    expert_prefix: Share = 0.0
    """Share of an episode, at the first step of the run, that the domain's expert plays before the policy takes over;
    each group has a number of steps of its own between none and that. It falls as `hints` do."""


@settings
class Phase:
    """Some updates on one mixture of domains and levels."""

    mixture: Annotated[Mixture, Field(min_length=1)]
    """What is played: `domain` or `domain:level`, and its share of the groups. A group never holds two of them."""
    max_steps: PositiveInt = 100
    """Updates."""

    @property
    def shares(self) -> dict[str, float]:
        """What is played, with shares that sum to 1."""
        return shares(self.mixture)


@settings
class CurriculumConfig:
    """Mixtures one after the other: one phase with several domains is a mixture, several phases with one domain each
    are a cascade, several levels of one domain are a path from easy to hard. The weights after each phase are kept."""

    phases: tuple[Phase, ...] = ()
    """The phases in order; when empty, `source` for `max_steps` updates."""
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the groups, in every phase but the first, from what earlier phases were trained on."""
    adaptive: bool = False
    """Whether what is neither always nor never solved is played more often: shares are multiplied by p (1 - p), with p
    the success of the last steps that played it."""
    horizon_start: PositiveInt | None = None
    """Steps after which an episode is cut off at the beginning of the run; it grows on a line over the first half of
    the run to `rollout.horizon`, or the level's own horizon. Not changed when null."""


@settings
class LoraConfig:
    """Low-rank adapters instead of full weights (LoRA, arXiv 2106.09685)."""

    r: PositiveInt = 16
    """Rank of an adapter. Its scale, alpha, is twice that."""

    @property
    def alpha(self) -> float:
        return 2.0 * self.r


@settings
class ForgettingConfig:
    """Ways to forget less. None of them sees a task or a reward of a domain that is not trained on, but `replay`
    reads the text of other domains' train tasks.

    The start is `model`, before SFT too, except for `kl_budget`. Beside these settings `algorithm.beta` holds the
    policy near where RL begins, `lora` narrows what can change, and `rollout.wrap` takes distractors.
    """

    replay: NonNegativeFloat = 0.0
    """Weight in the loss of KL(start || policy) on the text of other domains: what the starting policy met and said
    when it played some of their train tasks. Their rewards are not looked at. It holds during SFT, too."""
    replay_domains: tuple[str, ...] = ()
    """The domains whose text is replayed; when empty, every installed one that is neither trained on, nor imitated,
    nor held out, nor a target only."""
    interpolate: Share | None = None
    """Ends the run with weights between the start's and the trained ones (WiSE-FT, arXiv 2109.01903): those nearest
    to the start that keep this share of the gain in success on validation tasks; the start's own where there was no
    gain. Null keeps the trained ones."""
    merge: Literal["mean"] | None = None
    """Trains a policy for each domain of the mixture, all from the start, and merges them: `mean` of the weights. Null
    trains one policy on the mixture."""
    kl_budget: PositiveFloat | None = None
    """Ends the run when KL(then || now), in nats an action on states that the policy met in 32 tasks trained on when RL
    began, passes this; what is kept is the last checkpoint below it. It is measured at every checkpoint."""
    custom: tuple[str, ...] = ()
    """Methods of your own, each a class as `module:Class` (see `gentax.training.forgetting`)."""


@settings
class TrainConfig:
    """Training of one policy, from its start to its last checkpoint. Every setting goes with every other, except
    where two contradict each other, which is refused by name."""

    source: str = "sokoban"
    """The domain trained on, `domain` or `domain:level`, where `curriculum.phases` is empty."""
    max_steps: NonNegativeInt = 100
    """Policy-gradient steps, each on fresh episodes, where `curriculum.phases` is empty; 0 for none, after `sft`."""
    model: str = "base"
    """The policy to start from: `base` for the one that ships with gentax, a folder, a hub's
    `org/name[@revision]`, an adapter's folder, or a `.gguf` file."""
    seed: int = 0
    """Which tasks are chosen, and every sampled token."""
    tasks_per_step: PositiveInt = 16
    """Groups in a step; every group plays one task."""
    num_generations: PositiveInt = 8
    """Episodes on each task."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of Adam: reached after `warmup_steps`, then lowered linearly to 0 at the last step. When null,
    by the number of parameters: 1.5e-4 up to 2 M, 7e-6 at 270 M, 1e-6 from 8 B on, and between them on a line over the
    logarithms of both; above 2 M ten times that with `lora`. The run says which, and its `recipe.json` has it."""
    warmup_steps: NonNegativeInt = 5
    """Steps over which the learning rate rises from 0."""
    rollout: RolloutConfig = field(default_factory=lambda: RolloutConfig(temperature=0.7))
    """How episodes are played while training. At temperature 1 (the paper's) small models slip too often to succeed.
    Validation tasks are played likewise, but without wrappers, at the sparse reward and at temperature 0.4."""
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
    eval_steps: NonNegativeInt = 25
    """Steps between two validations; 0 for never. Nothing but `forgetting.interpolate` is decided by them."""
    eval_tasks: PositiveInt = 64
    """Tasks of the validation split, of each domain trained on. It shares no content with `train` or `test`."""
    save_steps: PositiveInt = 25
    """Steps between two checkpoints; those at the end of a phase are kept as well."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
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
    adapter_base: str | None = None
    """The model that `model`, an adapter's folder, is for, where its own configuration names none or another place."""
    parallel: PositiveInt | None = None
    """Episodes in flight at once; when null, as many as memory holds, 128 at most. A stopped run may be continued with
    another number: what is played does not depend on it, but for rounding."""
    shard: bool = False
    """Whether weights, gradients and optimiser state are spread over the processes of the run (FSDP2) instead of held
    whole by each (data parallel); one process holds them whole in any case."""
    trainer: Literal["gentax", "trl"] = "gentax"
    """`gentax`, or `trl`: gentax plays, TRL's GRPOTrainer optimises."""
    vllm_server_base_url: str | None = None
    """With `trl`: the address of a vLLM server that plays in place of this process, such as `http://localhost:8000`.
    TRL sends it the new weights after each update. It runs on GPUs of its own and was started, as TRL asks for, by
    `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}' --logprobs-mode
    processed_logprobs`."""

    def __post_init__(self) -> None:
        for refused, why in self._contradictions():
            if refused:
                raise UsageError(f"recipe: {why}")

    def options(self, device: str = "auto") -> ModelOptions:
        """Return how `model` is loaded on a device."""
        return ModelOptions(device, self.dtype, self.adapter_base)

    def identity(self) -> TrainConfig:
        """Return the config without what may change while a run is stopped."""
        return replace(self, parallel=None)

    def phases(self) -> tuple[Phase, ...]:
        """Return what is trained on, phase after phase; none where `max_steps` is 0."""
        if self.curriculum.phases or not self.max_steps:
            return self.curriculum.phases
        return (Phase({self.source: 1.0}, self.max_steps),)

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
        """The other policies that the config names, as (what they are, their name): teachers, and the judge."""
        teachers = tuple(("teacher", who) for who in (self.sft.teachers.values() if self.sft else ()))
        return teachers if self.reward.judge is None else (*teachers, ("reward.judge", self.reward.judge))

    def looking(self) -> RolloutConfig:
        """Return how validation tasks are played."""
        return replace(self.rollout, temperature=VALIDATION_TEMPERATURE, wrap=(), reward="sparse")

    def _contradictions(self) -> list[tuple[bool, str]]:
        """Return (whether it is so, what is wrong) for each pair of settings that cannot both hold."""
        default = {f.name: f.default for f in fields(self)}
        estimator, phases = self.algorithm.advantage_estimator, bool(self.curriculum.phases)
        mixture = max((len(phase.mixture) for phase in self.phases()), default=0)
        whole = RolloutConfig()
        return [
            (
                self.num_generations < 2 and estimator in ("grpo", "rloo", "gigpo"),
                f"num_generations must be at least 2 with {estimator}, which compares the episodes of a group",
            ),
            (
                self.rollout.temperature == 0,
                "rollout.temperature is 0; without chance all episodes of a group are the same",
            ),
            (
                bool(self.reward.think_length) and not self.rollout.thinking,
                "reward.think_length pays for thoughts, and rollout.thinking is off",
            ),
            (
                phases and any(getattr(self, name) != default[name] for name in ("source", "max_steps")),
                "curriculum.phases say what is trained on and how long; leave out source and max_steps",
            ),
            (
                bool(self.curriculum.replay) and len(self.curriculum.phases) < 2,
                "curriculum.replay takes from earlier phases, and there is only one",
            ),
            (
                self.curriculum.adaptive and mixture < 2,
                "curriculum.adaptive chooses among the parts of a mixture, and there is only one part",
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
                any(getattr(self.rollout, name) != getattr(whole, name) for name in ("top_p", "top_k", "min_p")),
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
                self.trainer == "trl" and estimator not in ("grpo", "rloo"),
                f"trainer trl computes grpo and rloo, not {estimator}",
            ),
        ]


def shipped() -> dict[str, Path]:
    """Return the recipes that come with gentax: name -> file."""
    return {file.stem: file for file in sorted(RECIPES.glob("*.yaml"))}


def read_values(where: str | Path) -> Mapping[str, Any]:
    """Return the settings in a recipe's file, or in one that ships with gentax by its name.

    Raises:
        UsageError: there is no such recipe or file.
    """
    known = shipped()
    file = known.get(str(where), Path(where))
    if not file.exists() and file.suffix not in (".yaml", ".yml"):
        raise unknown("recipe", where, known)
    values = read_yaml(file) or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{file} is no recipe: it holds no mapping of settings to values")
    return values
