"""A study's settings: which policies are trained where, on what they are all evaluated, and what is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveInt

from gentax.core import UsageError, unknown
from gentax.core.settings import read_settings, read_yaml, settings
from gentax.domains import domain, make
from gentax.domains.registry import why_not_untouched
from gentax.metrics.statistics import few_seeds_caveat
from gentax.models.options import Dtype, ModelOptions
from gentax.rollouts import EvalRolloutConfig
from gentax.studies.claim_parser import read_claims
from gentax.training import TrainConfig
from gentax.training.check import check as check_recipe
from gentax.training.check import touched_by
from gentax.training.config import OLD_KEYS, read_values

SHIPPED = Path(__file__).parent / "shipped"  # studies that come with the package
PLAIN = "plain"  # the arm that the others are compared with where they name none
FOLDER_NAME = re.compile(r"[\w+=@,-][\w+=@,. -]{0,63}")  # of a study and of an arm; no path, nothing hidden


@settings
class Target:
    """A domain as it is evaluated."""

    tasks: Annotated[int, Field(ge=2)] = 128
    """Test tasks; all of a split that has fewer."""
    level: str | None = None
    """The level; the domain's default when null. It is also the level trained on when the domain is a source."""


@settings
class Study:
    """Sources × arms × seeds, evaluated on the same test tasks before and after."""

    old_keys: ClassVar[Mapping[str, str]] = OLD_KEYS

    name: str
    """How its folder is called."""
    domains: dict[str, Target]
    """Every domain that is evaluated."""
    sources: tuple[str, ...]
    """The domains trained on, one policy each."""
    about: str = ""
    """A line for the report."""
    model: str = "base"
    """The starting policy: `base`, a folder, a hub's `org/name[@revision]`, an adapter's folder, a `.gguf` file."""
    device: str = "auto"
    """Where models are: `cpu`, `cuda`, `cuda:1` …; `auto` takes a GPU where there is one."""
    dtype: Dtype = "auto"
    """The number format that models are loaded in: `auto` is the one they are stored in, or `float32`, `bfloat16`,
    `float16`."""
    arms: dict[str, dict[str, Any]] = field(default_factory=lambda: {PLAIN: {}})
    """Ways of training: a name, and what differs from `train`. Each is compared with the base. An arm with `remedies:
    NAME` starts from the settings of that arm and is compared with it as well; in a study with an arm called `plain`,
    arms that name none are compared with that one."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    train: dict[str, Any] = field(default_factory=dict)
    """The recipe that all arms share (see `gentax.training.TrainConfig`). `recipe: shipped` begins with the one that
    ships with gentax for each source, `recipe: NAME` with that one; the other keys change it."""
    evaluate: EvalRolloutConfig = field(default_factory=EvalRolloutConfig)
    """How test tasks are played."""
    samples: PositiveInt = 1
    """Episodes on each test task."""
    split: str = "test"
    """The split that is played to evaluate. Choose settings on `validation`; report what `test` says."""
    claims: tuple[str, ...] = ()
    """What the study is to show, such as `tax(distractors) < tax(plain) on untouched` (see `claim_parser.py`)."""

    def baseline(self, arm: str) -> str | None:
        """Return the arm that `arm` is compared with beside the base, if there is one."""
        named = self.arms[arm].get("remedies")
        if named is not None:
            return str(named)
        return PLAIN if PLAIN in self.arms and arm != PLAIN else None

    def changes(self, arm: str) -> dict[str, Any]:
        """Return what an arm changes of `train`; of a remedy, with what the arm that it remedies changes.

        Raises:
            UsageError: a remedy of an arm that does not exist, or of itself.
        """
        chain = [arm]
        while (named := self.arms[chain[-1]].get("remedies")) is not None:
            named = str(named)  # YAML may give a number, as the name of an arm may look like one
            if named not in self.arms:
                raise unknown(f"arm that {chain[-1]} remedies in study {self.name}", named, self.arms)
            if named in chain:
                raise UsageError(f"study {self.name}: arm {named} remedies itself")
            chain.append(named)
        changes: dict[str, Any] = {}
        for name in reversed(chain):
            changes = _over(changes, {key: value for key, value in self.arms[name].items() if key != "remedies"})
        return changes

    def train_config(self, source: str, arm: str, seed: int) -> TrainConfig:
        """Return the recipe of one cell. Raises UsageError for a key that recipes do not have."""
        values = _over(self.train, self.changes(arm))
        for key in ("source", "seed", "model"):
            if key in values:
                raise UsageError(f"study {self.name}: {key!r} is set by the study itself, not in train or arms")
        if (named := values.pop("recipe", None)) is not None:
            if not isinstance(named, str):
                raise UsageError(f"study {self.name}, train: recipe must be the name of one, not {named!r}")
            given = read_values(source if named == "shipped" else named)
            values = _over({key: value for key, value in given.items() if key != "source"}, values)
        values = {"dtype": self.dtype, **values}
        curriculum = values.get("curriculum")
        phases = isinstance(curriculum, Mapping) and curriculum.get("phases")
        if phases:  # which say what is trained on, and for how long
            values.pop("max_steps", None)
        config = read_settings(TrainConfig, values, f"study {self.name}, train")
        config = replace(config, seed=seed, model=self.model)
        level = self.domains[source].level
        return config if phases else replace(config, source=f"{source}:{level}" if level else source)

    def touched(self, arm: str, source: str) -> frozenset[str]:
        """Return the domains that enter the training of an arm on a source."""
        return touched_by(self.train_config(source, arm, self.seeds[0]))

    def cannot_claim(self) -> str | None:
        """Return a warning about what fewer than three seeds cannot show, and what more would take; None for enough."""
        return few_seeds_caveat(len(self.seeds), len(self.arms) * len(self.sources))

    @property
    def options(self) -> ModelOptions:
        """How models are loaded."""
        return ModelOptions(self.device, self.dtype)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with what `above` says, group by group."""
    both = {
        key: _over(below[key], value) if isinstance(value, Mapping) and isinstance(below.get(key), Mapping) else value
        for key, value in above.items()
    }
    return {**below, **both}


def read_study(path: str | Path) -> Study:
    """Read a study from a YAML file, or one that ships with gentax by its name; check everything it names.

    Raises:
        UsageError: a file, key, domain, level, source or model that does not exist.
    """
    where = study_path(path)
    study = read_settings(Study, read_yaml(where) or {}, str(where))
    check(study)
    return study


def study_path(path: str | Path) -> Path:
    """Return the file of a study, which may be given by its name where it ships with gentax. Raises UsageError."""
    shipped = {file.stem: file for file in SHIPPED.glob("*.yaml")}
    where = shipped.get(str(path), Path(path))
    if not where.exists() and where.suffix not in (".yaml", ".yml"):
        raise unknown("study", path, shipped)
    return where


def check(study: Study) -> None:
    """Raise UsageError when a study names something that does not exist; nothing heavy is loaded."""
    if not study.sources or not study.seeds or not study.arms:
        raise UsageError(f"study {study.name}: it needs at least one source, one seed and one arm")
    study.options  # noqa: B018  refuses what is no device
    for name, target in study.domains.items():
        if study.split not in domain(name).splits:
            raise unknown(f"split of {name} in study {study.name}", study.split, domain(name).splits)
        env = make(name, target.level)
        try:
            why = why_not_untouched(env, "validation") if study.split == "validation" else ""
        finally:
            env.close()
        if why:
            raise UsageError(f"study {study.name} chooses by validation tasks, and {name} {why}")
    for name in (study.name, *study.arms):
        if not FOLDER_NAME.fullmatch(name):
            raise UsageError(
                f"study {study.name}: {name!r} cannot be the name of a study or an arm, since folders are named by it: "
                "letters, digits, spaces and _ + = @ , . - (not first), 64 at most"
            )
    for source in study.sources:
        if source not in study.domains:
            raise unknown(f"source in study {study.name}", source, study.domains)
        if domain(source).target_only:
            raise UsageError(f"study {study.name}: {source} is a target only and cannot be a source")
        for arm in study.arms:
            check_recipe(study.train_config(source, arm, study.seeds[0]))
    if len(set(study.seeds)) != len(study.seeds) or len(set(study.sources)) != len(study.sources):
        raise UsageError(f"study {study.name}: a seed or a source is named twice")
    if len(study.domains) < 2:
        raise UsageError(f"study {study.name}: a tax needs at least one domain besides the source")
    read_claims(study)
