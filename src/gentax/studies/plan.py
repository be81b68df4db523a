"""The stages of a study: a graph in which each stage is addressed by the hash of everything that goes into it.

A stage is one unit of work: an evaluation on one domain, a training run, the report. Its address covers its settings,
the addresses of the stages it needs, the versions of the environments it plays and the code that it runs. Two studies
that share a stage share its folder, and a stage whose sealed folder is intact is done (`Store.has`): another arm, seed
or target costs only itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import gentax
from gentax.core.settings import plain
from gentax.domains import domain
from gentax.models.options import ModelOptions
from gentax.models.source import fingerprint, is_here, may_name_model
from gentax.policies.load import SCRIPTED_BY_NAME
from gentax.rollouts import RolloutConfig
from gentax.rollouts.prompt import template_text
from gentax.studies.study import Study
from gentax.training.check import touched_by
from gentax.training.config import TrainConfig

FORMAT = 7  # raised when a stage's folder means something else than before
RANDOM = "random"  # the policy whose success is what chance alone gives
PLAYING = ("core", "domains/*.py", "wrappers", "models", "policies", "rollouts")  # the code that an evaluation runs
TRAINING = (*PLAYING, "training")
NOT_CODE = ("domains/check", "training/recipes")  # nothing of a stage runs it
Cell = tuple[str, str, int]  # (arm, source, seed)


@dataclass(frozen=True)
class Stage:
    """One unit of work. `inputs` and the addresses of `needs` determine its result."""

    kind: Literal["evaluate", "train", "report"]
    label: str  # in the name of its folder: the domain, or the source and the seed
    inputs: Mapping[str, Any]
    needs: tuple[Stage, ...] = ()
    title: str = ""  # for people
    cell: Cell | None = None  # of a training and the evaluations of its policy

    @cached_property
    def digest(self) -> str:
        """The hash of everything this stage depends on."""
        content = [FORMAT, self.kind, self.inputs, [stage.digest for stage in self.needs]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def folder(self) -> str:
        """The name of its folder: stages of equal inputs share one, whatever their arms are called."""
        label = re.sub(r"[^\w+.-]+", "_", self.label)[:100]
        return f"{self.kind}-{label}-{self.digest}"

    @property
    def runs_model(self) -> bool:
        """Whether it trains or plays a model, rather than a scripted policy."""
        return self.kind == "train" or (self.kind == "evaluate" and "policy" not in self.inputs)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stage) and self.folder == other.folder


@dataclass(frozen=True)
class Plan:
    """The stages of a study, in an order in which they can be done."""

    study: Study
    init: dict[str, Stage]  # domain -> evaluation of the base
    random: dict[str, Stage]  # domain -> evaluation of random play
    trained: dict[Cell, Stage]
    after: dict[tuple[str, str, int, str], Stage]  # (arm, source, seed, domain) -> evaluation
    report: Stage  # the numbers as JSON, and the page
    by_name: tuple[str, ...] = ()  # models that are not on this machine: their names stand for their weights

    def groups(self) -> dict[str, list[Stage]]:
        """Return every stage under a title: the base, random play, each training run with its evaluations, the report.

        Arms of equal settings share stages, which stand in the group of each.
        """
        cells = {
            training.title: [training, *(self.after[(*cell, name)] for name in self.study.domains)]
            for cell, training in self.trained.items()
        }
        before = {"base": [*self.init.values()], "random play": [*self.random.values()]}
        return {**before, **cells, "report": [self.report]}

    def stages(self) -> list[Stage]:
        """Return every stage once, those that others need before them."""
        return list(dict.fromkeys(itertools.chain.from_iterable(self.groups().values())))


def make_plan(study: Study, *, weights: bool = True) -> Plan:
    """Lay out the stages of a study, which downloads models of a hub.

    Without `weights` the name of a model that is not on this machine stands for its weights, to count stages; none of
    them will be found done.

    Raises:
        UsageError: its model, or a file that it names, does not exist.
    """
    models = _Models(weights)
    base = models.fingerprint(study.model, study.options)
    template = _prompt_template(study.evaluate)
    model = {"base": base, "dtype": study.dtype, **template}
    evaluations = {
        name: {
            "domain": name,
            "level": target.level or domain(name).default_level,
            "split": study.split,
            "tasks": target.tasks,
            "samples": study.samples,
            "rollout": plain(study.evaluate),
            "code": code_version(PLAYING, [name]),
        }
        for name, target in study.domains.items()
    }

    def evaluation(title: str, name: str, policy: Mapping[str, Any], trained: Stage | None = None) -> Stage:
        inputs = {**policy, **evaluations[name]}
        needs = () if trained is None else (trained,)
        cell = None if trained is None else trained.cell
        return Stage("evaluate", name, inputs, needs, f"{title} on {name}", cell)

    init = {name: evaluation("base", name, model) for name in study.domains}
    random = {name: evaluation("random play", name, {"policy": RANDOM}) for name in study.domains}
    trained, after = {}, {}
    for arm, source in itertools.product(study.arms, study.sources):
        config = study.train_config(source, arm, study.seeds[0])
        inputs = {"base": base, **_training_inputs(config, models)}
        for seed in study.seeds:
            title = _title(study, arm, source, seed)
            of_seed = {**inputs, "recipe": {**inputs["recipe"], "seed": seed}}
            stage = Stage("train", f"{source}-seed{seed}", of_seed, (), f"train {title}", (arm, source, seed))
            trained[arm, source, seed] = stage
            for name in study.domains:
                after[arm, source, seed, name] = evaluation(title, name, model, stage)
    needs = dict.fromkeys((*init.values(), *random.values(), *after.values(), *trained.values()))
    whole = {"study": plain(study), "code": code_version(("metrics", "report", "studies"), [])}
    report = Stage("report", study.name, whole, tuple(needs), "write the report")
    return Plan(study, init, random, trained, after, report, tuple(models.by_name))


class _Models:
    """The hashes of models, or their names where they are not there and need not be."""

    def __init__(self, weights: bool) -> None:
        self.weights = weights
        self.by_name: dict[str, None] = {}

    def fingerprint(self, model: str, options: ModelOptions = ModelOptions()) -> str:
        if self.weights or "/" not in model or is_here(model):  # a word without a slash is a slip for `base`
            return fingerprint(model, options)
        self.by_name[model] = None
        return f"by name: {model}"


def _training_inputs(config: TrainConfig, models: _Models) -> dict[str, Any]:
    """Return what a training run depends on besides its base: settings, and the files and code that they name."""
    inputs: dict[str, Any] = {"recipe": plain(config), **_prompt_template(config.rollout)}
    names = {name for _, name in config.named_policies} - {"start", *SCRIPTED_BY_NAME}
    named = {name for name in names if may_name_model(name)}
    if named:  # teachers and judges, whose files may change
        inputs["reads"] = {name: models.fingerprint(name) for name in sorted(named)}
    inputs["code"] = code_version(TRAINING, touched_by(config))
    return inputs


def _title(study: Study, arm: str, source: str, seed: int) -> str:
    """Return the name of a cell for people: its arm, with source and seed where there are several."""
    on = f" on {source}" if len(study.sources) > 1 or len(study.arms) == 1 else ""
    return f"{arm}{on}" + (f", seed {seed}" if len(study.seeds) > 1 else "")


def _prompt_template(config: RolloutConfig) -> dict[str, str]:
    """Return the hash of the prompt template's file, which may change; empty where none is named."""
    if not config.prompt_template:
        return {}
    return {"prompt_template": _hash([template_text(config.prompt_template).encode()])}


def code_version(rooms: Iterable[str], names: Iterable[str]) -> str:
    """Return a hash of gentax's code in some rooms, of the environments called `names`, and of the packages they need.

    A comment counts as code: what cannot change a result is not told apart from what can.
    """
    return _code_version(tuple(rooms), tuple(sorted(names)))


@cache
def _code_version(rooms: tuple[str, ...], names: tuple[str, ...]) -> str:
    root = Path(gentax.__file__).parent
    sources = [path for room in rooms for path in sorted(root.glob(room))]
    packages: set[str] = set()
    for name in names:
        record = domain(name)
        sources.append(_source_of(record.entry.partition(":")[0]))
        packages.update(record.requires)
    files = sorted({file for path in sources for file in _files(path)})
    contents = [file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name for file in files]
    versions = [f"{package} {_package_version(package)}" for package in sorted(packages)]
    return _hash([*(file.read_bytes() for file in files), *map(str.encode, (*contents, *versions))])


def _source_of(module: str) -> Path:
    """Return the folder of a package, or the file of a module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return Path()
    origin = Path(spec.origin)
    own_package = origin.name == "__init__.py" or origin.is_relative_to(Path(gentax.__file__).parent / "domains")
    return origin.parent if own_package else origin


def _files(path: Path) -> list[Path]:
    """Return the source files of a folder, without those of `NOT_CODE`; a file stands for itself."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    root = Path(gentax.__file__).parent
    skipped = [root / name for name in NOT_CODE]
    return [
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.suffix in (".py", ".json", ".txt", ".jinja", ".yaml")
        and not any(file.is_relative_to(folder) for folder in skipped)
    ]


def _package_version(module: str) -> str:
    """Return the version of the package that a module comes from; "" where it is not installed."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return " ".join(metadata.version(name) for name in _distributions().get(module, ()))


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]
