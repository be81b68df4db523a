"""The settings of a training run: one documented dataclass, and one for each group of settings in it."""

from gentax.training.config.curriculum import CurriculumConfig, Phase
from gentax.training.config.exploration import ExplorationConfig
from gentax.training.config.forgetting import ForgettingConfig, LoraConfig
from gentax.training.config.policy_gradient import PolicyGradientConfig
from gentax.training.config.reward import RewardConfig
from gentax.training.config.sft import SFTConfig
from gentax.training.config.train import RUN_FORMAT, TrainConfig

__all__ = [
    "RUN_FORMAT",
    "CurriculumConfig",
    "ExplorationConfig",
    "ForgettingConfig",
    "LoraConfig",
    "Phase",
    "PolicyGradientConfig",
    "RewardConfig",
    "SFTConfig",
    "TrainConfig",
]
