"""The domains that a config names: they must exist and be allowed, and these are the ones that training touches.

Everything is refused by name before any model, task or server is loaded. A domain is *touched* when its tasks, text or
experts enter training in any form; a remedy is judged by the targets that are not.
"""

from __future__ import annotations

import json
from pathlib import Path

from gentax.core import UsageError, unknown
from gentax.core.imports import is_import_path
from gentax.core.settings import read_settings
from gentax.domains import domain, make, missing_modules
from gentax.domains.registry import parse_domain
from gentax.models.source import may_name_model
from gentax.policies.load import SCRIPTED_BY_NAME, load_policy
from gentax.rollouts import make_env
from gentax.training.config import RUN_FORMAT, TrainConfig
from gentax.training.forgetting import forgetting_methods


def check(config: TrainConfig) -> None:
    """Check the domains and levels of a recipe.

    Raises:
        UsageError: a domain or level that does not exist or is not installed; one that is trained on or imitated and
            is a target only or held out; one whose text is replayed and that is a target only, held out, or trained
            on as well.
    """
    held_out = {name: _exists(name) for name in config.held_out_domains}
    trained = {name: _exists(name) for name in config.trained}
    mix = config.sft.mixture if config.sft else {}
    imitated = {name: _exists(name) for name in mix or config.sft_mixture}  # those with a weight of 0 must exist, too
    if config.sft is not None:
        for name in config.sft.teachers:
            if name not in imitated:
                raise unknown("name in sft.teachers", name, imitated)
        if not imitated:
            raise UsageError("recipe: sft.mixture is empty and max_steps is 0, so nothing says what to imitate")
    replayed = {name: _exists(name) for name in config.forgetting.replay_domains}
    for what, names in (("trained on", trained), ("imitated", imitated), ("replayed", replayed)):
        for name in names.values():
            if name in held_out.values():
                raise UsageError(f"recipe: {name} is {what} and held out")
            if domain(name).target_only:
                raise UsageError(f"recipe: {name} is {what}, and it is a target only: no training reads it")
    for name in replayed.values():
        if name in trained.values():
            raise UsageError(f"recipe: {name} is in forgetting.replay_domains and trained on; leave one of them out")
    if config.rollout.reward != "sparse" or config.rollout.wrap:
        for name in trained:  # wrappers and rewards that a domain cannot have
            domain_name, level = parse_domain(name)
            make_env(config.rollout, domain_name, level).close()
    for role, name in config.named_policies:
        _check_policy(role, name)


def _check_policy(role: str, name: str) -> None:
    """Refuse a teacher or a judge that is neither a policy by name, nor a URL, nor a model or file that is there.

    One of the user's own (`module:policy`) is imported, so that its errors are reported now.
    """
    named = (*SCRIPTED_BY_NAME, "start", "base") if role == "teacher" else ("base",)
    if is_import_path(name) and not Path(name).exists():
        load_policy(name)
    elif name not in named and "://" not in name:
        if not may_name_model(name):
            raise unknown(role, name, (*named, *sorted(map(str, Path(name).parent.glob("*")))[:50]))
        if not Path(name).is_file():  # a teacher may be a file of conversations
            from gentax.models.loading import load_meta_model  # PyTorch is not loaded to refuse a setting

            load_meta_model(name)  # what its files say, without its weights


def _exists(text: str) -> str:
    """Return the name of the domain in `domain` or `domain:level`; refuse what does not exist."""
    name, level = parse_domain(text)
    record = domain(name)
    if lacking := missing_modules(record):
        raise UsageError(f"domain {name!r} needs {', '.join(lacking)}: {record.enable}")
    if level is not None and level not in record.levels:
        if not record.open_levels:
            raise unknown(f"level of {name}", level, record.levels)
        make(name, level).close()  # the environment alone knows what it can read
    return name


def touched_by(config: TrainConfig) -> frozenset[str]:
    """Return the domains that are trained on, imitated (by experts, other policies or files) or replayed.

    The source is among them. A remedy is judged by the targets that are not.

    Raises:
        UsageError: `forgetting.replay` has no domain left to replay.
    """
    teachers = config.sft.teachers if config.sft is not None else {}
    methods = [name for method in forgetting_methods(config) for name in method.touched_domains()]
    named = (*config.trained, *config.sft_mixture, *teachers, *methods)
    return frozenset(parse_domain(name)[0] for name in named)


def touched_by_run(model: Path) -> frozenset[str] | None:
    """Return the domains that the run of a checkpoint touched; None for a model that is from no run of gentax.

    Args:
        model: a checkpoint in a run's folder, or that folder.

    Raises:
        UsageError: a run of another version, whose recipe cannot be read.
    """
    for folder in (model, model.parent):
        record = folder / "recipe.json"
        try:
            values = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not isinstance(values, dict) or not {"forgetting", "retain"} & values.keys():  # somebody else's
            continue
        try:
            if values.pop("format", None) != RUN_FORMAT:
                raise UsageError("another version of gentax wrote it")
            return touched_by(read_settings(TrainConfig, values, str(record)))
        except UsageError as error:
            why = f"{record} does not say what training touched: {error}"
            raise UsageError(f"{why}; move it away and name the targets with --touched") from None
    return None
