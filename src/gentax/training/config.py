"""The settings of a training run: `TrainConfig` and its groups, read from a recipe, a YAML file of settings.

What nobody would turn is a constant beside the code that reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gentax.core import UsageError, unknown
from gentax.core.settings import Mixture, read_yaml, settings, shares
from gentax.models.options import Dtype, ModelOptions
from gentax.rollouts.prompt import EvalRolloutConfig, RolloutConfig

RECIPES = Path(__file__).parent / "recipes"  # those that come with the package, by name
RUN_FORMAT = 4  # raised when the files of a run's folder mean something else than before
VALIDATION_TEMPERATURE = 0.4  # that of the paper's evaluations

# Keys of earlier versions and what they are called now: an old key is refused with the new one.
RENAMED = {
    "base": "model",
    "checkpoint_every": "save_steps",
    "entropy": "entropy_coef",
    "epochs": "num_train_epochs",
    "estimator": "advantage_estimator",
    "group": "num_generations",
    "held_out": "held_out_domains",
    "imitate": "sft",
    "kl": "beta",
    "lr": "learning_rate",
    "mix": "mixture",
    "pairs": "max_pairs",
    "per": "loss_aggregation",
    "play": "rollout",
    "rank": "r",
    "retain": "forgetting",
    "schedule": "curriculum",
    "std": "normalize_std",
    "steps": "max_steps",
    "stop_at": "kl_budget",
    "validate_every": "eval_steps",
}
# And keys that are no settings any more, with what takes their place.
_CONSTANT = "is a constant now, with the value that was its default"
_ONE_UPDATE = "is gone: a step is one update on all of its episodes, which the clip range (0.2) hardly touches"
_SFT_FIRST = "is gone: let `sft` learn from the expert first"
_CUT_OFF = "is for evaluation only: it cuts off the distribution that the loss scores, and so biases the gradient"
REMOVED = {
    **dict.fromkeys(
        ("alpha", "judge_weight", "replay_tasks", "step_weight", "train_tasks", "until", "value_lr"), _CONSTANT
    ),
    **dict.fromkeys(("discount", "gae_lambda", "gamma", "smoothing"), _CONSTANT),
    **dict.fromkeys(("eval_tasks", "validate_tasks", "warmup", "warmup_steps"), _CONSTANT),
    **dict.fromkeys(("clip", "clip_high", "epsilon", "epsilon_high", "minibatches"), _ONE_UPDATE),
    **dict.fromkeys(("exploration", "explore"), f"{_SFT_FIRST}; `algorithm.entropy_coef` explores"),
    **dict.fromkeys(("expert_prefix", "head_start", "hints"), _SFT_FIRST),
    **{
        key: f"is no part of a recipe: it is now `--{key.replace('_', '-')}` of `gentax train` and `{key}` of `train`"
        " (a study has `device`, and `gentax study run` has `--parallel`)"
        for key in ("device", "parallel", "vllm_server_base_url")
    },
    **dict.fromkeys(("min_p", "top_k", "top_p"), _CUT_OFF),
    "adapter_base": "is gone: name the base in the adapter's own adapter_config.json (base_model_name_or_path)",
    "curriculum.replay": "is gone: give the later phase a `mixture` that names what it should replay",
    "count_bonus": "is gone: `algorithm.entropy_coef` is what keeps a policy exploring",
    "gradient_checkpointing": "is gone: it is used where activations would fill a tenth of the memory",
    "horizon_start": "is gone: set `rollout.horizon`, or let `curriculum.phases` go from easy levels to hard ones",
    "interpolate": "is now `merge: interpolate`, which keeps 90 % of the gain",
    "kl_in": "is gone: the KL term (`algorithm.beta`) is in the loss",
    "level": "is part of `source` now: domain:level",
    "shard": "is gone: processes spread a model (FSDP2) that one of them has no room for",
    "temperature_end": "is gone: `rollout.temperature` holds for the whole run",
    "think_length": "is gone: `rollout.max_new_tokens` limits thoughts",
    "validate_play": "is gone: validation tasks are played as in training, at temperature 0.4 and without wrappers",
}
OLD_KEYS = {old: f"is now `{new}`" for old, new in RENAMED.items()} | REMOVED


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
    beta: NonNegativeFloat = 0.01
    """Weight in the loss of the KL divergence to the policy that RL began with (k3 estimator)."""
    entropy_coef: NonNegativeFloat = 0.0
    """Weight of the mean entropy of the sampled tokens' distributions, which is added to the objective."""


@settings
class RewardConfig:
    """What is added to the environment's rewards (`rollout.reward`: sparse, dense or shaped); a success pays 1."""

    invalid_penalty: NonNegativeFloat = 0.02
    """Taken for each action that cannot be read or is refused (the paper: 0.1, where a success pays 10). A reply that
    is cut off before its action pays it too: a policy should come to its action within its budget."""
    judge: str | None = None
    """A policy that reads each finished episode and scores it from 0 to 1, which is paid: the URL of an
    OpenAI-compatible server, such as `http://localhost:8000/v1#model`, a model as `model` names one, or a policy of
    your own, `module:policy`."""


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
    are a cascade, several levels of one domain are a path from easy to hard. A later phase that names earlier parts as
    well replays them. The weights after each phase are kept."""

    phases: tuple[Phase, ...] = ()
    """The phases in order; when empty, `source` for `max_steps` updates."""
    adaptive: bool = False
    """Whether what is neither always nor never solved is played more often: shares are multiplied by p (1 - p), with p
    the success of the last steps that played it."""


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
    merge: Literal["mean", "interpolate"] | None = None
    """What is made of the trained weights, as by `gentax merge`. `interpolate` ends the run with weights between the
    start's and the trained ones (WiSE-FT, arXiv 2109.01903): those nearest to the start that keep 90 % of the gain in
    success on validation tasks, the start's own where there was no gain. `mean` trains a policy for each domain of the
    mixture, all from the start, and ends with the mean of their weights. Null keeps the trained ones."""
    kl_budget: PositiveFloat | None = None
    """Ends the run when KL(then || now), in nats an action on states that the policy met in 32 tasks trained on when RL
    began, passes this; what is kept is the last checkpoint below it. It is measured at every checkpoint."""
    custom: tuple[str, ...] = ()
    """Methods of your own, each a class as `module:Class` (see `gentax.training.forgetting`)."""


@settings
class TrainConfig:
    """Training of one policy, from its start to its last checkpoint. Every setting goes with every other, except
    where two contradict each other, which is refused by name."""

    old_keys: ClassVar[Mapping[str, str]] = OLD_KEYS

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
    """Peak learning rate of Adam: reached after 5 steps, then lowered linearly to 0 at the last step. When null,
    by the number of parameters: 1.5e-4 up to 2 M, 7e-6 at 270 M, 1e-6 from 8 B on, and between them on a line over the
    logarithms of both; above 2 M ten times that with `lora`. The run says which, and its `recipe.json` has it."""
    rollout: RolloutConfig = field(default_factory=lambda: RolloutConfig(temperature=0.7))
    """How episodes are played while training. At temperature 1 (the paper's) small models slip too often to succeed.
    Validation tasks are played likewise, but without wrappers, at the sparse reward and at temperature 0.4."""
    sft: SFTConfig | None = None
    """Supervised training before the first step; none when null."""
    algorithm: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    """How episodes become a gradient."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What is added to the environment's rewards."""
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    """What is trained on, and when."""
    forgetting: ForgettingConfig = field(default_factory=ForgettingConfig)
    """What keeps the other domains from being forgotten."""
    lora: LoraConfig | None = None
    """Adapters to train instead of the weights; the weights themselves when null. Checkpoints hold merged weights."""
    held_out_domains: tuple[str, ...] = ()
    """Domains that training must not touch: a recipe that names one of them elsewhere is refused."""
    eval_steps: NonNegativeInt = 25
    """Steps between two validations; 0 for never. Nothing but `forgetting.merge: interpolate` is decided by them."""
    save_steps: PositiveInt = 25
    """Steps between two checkpoints; those at the end of a phase are kept as well."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """The number format of the arithmetic: `fp32`, `bf16` (autocast) or `auto`, which is bf16 where the hardware has
    it."""
    dtype: Dtype = "auto"
    """The number format that models are loaded in, play in and are saved in: `auto` is the one they are stored in, or
    `float32`, `bfloat16`, `float16`."""
    trainer: Literal["gentax", "trl"] = "gentax"
    """`gentax`, or `trl`: gentax plays, TRL's GRPOTrainer optimises; it takes no `sft`, and of `forgetting` only
    `merge: mean`."""

    def __post_init__(self) -> None:
        for why, refused in self._contradictions().items():
            if refused:
                raise UsageError(f"recipe: {why}")
        self.options()  # refuses what is no dtype

    def options(self, device: str = "auto") -> ModelOptions:
        """Return how `model` is loaded on a device."""
        return ModelOptions(device, self.dtype)

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
    def sft_mixture(self) -> dict[str, float]:
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
    def named_policies(self) -> tuple[tuple[str, str], ...]:
        """The other policies that the config names, as (role, name): teachers, and the judge."""
        teachers = tuple(("teacher", name) for name in (self.sft.teachers.values() if self.sft else ()))
        return teachers if self.reward.judge is None else (*teachers, ("reward.judge", self.reward.judge))

    def validation_rollout(self) -> RolloutConfig:
        """Return how validation tasks are played."""
        return replace(self.rollout, temperature=VALIDATION_TEMPERATURE, wrap=(), reward="sparse")

    def _contradictions(self) -> dict[str, bool]:
        """Return, for each pair of settings that cannot both hold, what is wrong and whether it is so."""
        default = {f.name: f.default for f in fields(self)}
        rollout, curriculum, forgetting, trl = self.rollout, self.curriculum, self.forgetting, self.trainer == "trl"
        estimator, phases = self.algorithm.advantage_estimator, curriculum.phases
        mixture = max((len(phase.mixture) for phase in self.phases()), default=0)
        twice = any(getattr(self, name) != default[name] for name in ("source", "max_steps"))
        experts = forgetting.merge == "mean"
        by_group = estimator in ("grpo", "rloo", "gigpo")
        return {
            f"num_generations must be at least 2 with {estimator}, which compares the episodes of a group": (
                self.num_generations < 2 and by_group
            ),
            "rollout.temperature is 0; without chance all episodes of a group are the same": rollout.temperature == 0,
            f"rollout.top_p, top_k and min_p: each {_CUT_OFF}": isinstance(rollout, EvalRolloutConfig),
            "curriculum.phases say what is trained on and how long; leave out source and max_steps": (
                bool(phases) and twice
            ),
            "curriculum.adaptive chooses among the parts of a mixture, and there is only one part": (
                curriculum.adaptive and mixture < 2
            ),
            "forgetting.merge: mean joins the policies of one mixture of two domains or more": (
                experts and (mixture < 2 or len(phases) > 1)
            ),
            "forgetting.merge: mean trains each part by itself; curriculum.adaptive has nothing to choose": (
                experts and curriculum.adaptive
            ),
            "forgetting.kl_budget ends the policy-gradient steps, and there is none": (
                forgetting.kl_budget is not None and not self.updates
            ),
            "forgetting.replay_domains are named, and forgetting.replay is 0": (
                bool(forgetting.replay_domains) and not forgetting.replay
            ),
            "max_steps is 0 and sft is null: nothing to do": not self.updates and self.sft is None,
            f"trainer trl computes grpo and rloo, not {estimator}": trl and estimator not in ("grpo", "rloo"),
        }


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
