"""`gentax train`, `gentax merge` and `gentax base build`"""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gentax.cli import options as o
from gentax.cli.options import with_settings
from gentax.cli.output import console, estimate_text, print_table, print_text, write_result
from gentax.core.console import status
from gentax.core.errors import UsageError


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file of settings, or the name of a shipped one; the defaults without.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the run goes.")] = Path("runs/train"),
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a setting; may be repeated.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the model is: `cpu`, `cuda`, `cuda:1` …; `auto` takes a GPU where there is one.")
    ] = "auto",
    parallel: o.Parallel = None,
    vllm_server_base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With `trainer=trl`: a vLLM server that plays in place of this process, such as `http://localhost:8000`.",
        ),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Log to `tensorboard`, `wandb`, `mlflow` or `trackio` as well."),
    ] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting with its default and exit.")
    ] = False,
    json: o.Json = None,
) -> None:
    """Train a policy: on one domain, a mixture or a sequence, by imitation, RL or both. A stopped run is continued.

    The checkpoints are Hugging Face folders. RECIPE may also be the name of a recipe that ships with gentax.

    Example: `gentax train --out runs/sokoban -s source=sokoban -s max_steps=60 -s rollout.thinking=true`
    """
    from gentax.core.settings import plain, read_settings
    from gentax.domains.registry import parse_domain
    from gentax.integrations.trackers import tracked
    from gentax.training.config import TrainConfig, read_values

    if settings:
        return write_result(json, _print_settings(TrainConfig))
    values = dict(read_values(recipe)) if recipe else {}
    for item in setting or ():
        _override(values, item)
    config = read_settings(TrainConfig, values, str(recipe or "recipe"))
    first = os.environ.get("RANK", "0") == "0"  # only the first process logs and prints
    with tracked(track if first else None, out, plain(config)) as on_step:
        if first:
            status("  starting PyTorch")
        from gentax.training import train as run

        folder = run(
            config,
            out,
            on_step,
            device=device,
            parallel=parallel,
            vllm_server_base_url=vllm_server_base_url,
            progress=True,
        )
    if not first:
        return
    print_text(f"model: {folder}")
    for source in dict.fromkeys(parse_domain(name)[0] for name in config.trained or config.sft_mixture):
        print_text(f"to measure the tax: gentax tax --base {config.model} --tuned {folder} --source {source}")
    write_result(json, {"model": str(folder), "config": plain(config)})


def _override(values: dict[str, Any], item: str) -> None:
    """Put `a.b=value` into nested mappings; the value is read as YAML."""
    from gentax.core.settings import parse_yaml

    key, equals, text = item.partition("=")
    if not equals:
        raise UsageError(f"--set takes KEY=VALUE, not {item!r}")
    *path, last = key.strip().split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {item}: {part!r} is not a group of settings")
    try:
        values[last] = parse_yaml(text)
    except ValueError:
        raise UsageError(f"--set {item}: the value is not YAML") from None


def _print_settings(cls: type, prefix: str = "", group: Any = None) -> dict[str, Any]:
    """Print the fields of a dataclass with their defaults, or their values in `group`, and what each is for.

    Returns the same by name.
    """
    from gentax.core.settings import field_docs

    docs, hints = field_docs(cls), typing.get_type_hints(cls)
    listed: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name, about = f"{prefix}{field.name}", docs.get(field.name, "")
        value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = value if group is None else getattr(group, field.name)
        is_group = dataclasses.is_dataclass(value)
        default = {} if is_group or value is dataclasses.MISSING else {"default": value}
        console.print(f"[bold]{name}[/]", Text(f"= {value}" if default else ""))
        print_text(f"    {about}")
        listed[name] = {"about": about, **default}
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                listed |= _print_settings(kind, f"{name}.", value if is_group else None)
    return listed


def merge(
    policies: Annotated[list[str], typer.Argument(metavar="MODEL…", help=f"Models trained from the base: {o.MODEL}.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the merged model goes.")],
    base: Annotated[str, typer.Option(help="The policy they were trained from; `base` ships with gentax.")] = "base",
    method: Annotated[
        str,
        typer.Option(help="`mean` of the weights, or `interpolate` (between one policy's weights and the base's)."),
    ] = "mean",
    weight: Annotated[
        float | None,
        typer.Option(help="For `interpolate`: the policy's share, 0 for the base's weights, 1 for its own; 0.5."),
    ] = None,
    json: o.Json = None,
) -> None:
    """Merge policies that were trained from the same base, or interpolate one towards it.

    Nothing is played. The result is a Hugging Face folder that also holds `merge.json`.

    Examples: `gentax merge runs/sokoban/step-000100 runs/webshop/step-000100 --out runs/both`, or
    `gentax merge runs/sokoban/step-000100 --method interpolate --weight 0.5 --out runs/half`
    """
    if weight is not None and method != "interpolate":
        raise UsageError(f"--weight is for --method interpolate, not for {method}")
    status(f"  loading {', '.join(policies)} and merging on the CPU")
    from gentax.training.forgetting.merge import merge_models

    folder = merge_models(base, policies, method, out, 0.5 if weight is None else weight)
    print_text(f"model: {folder}")
    print_text(f"to measure the tax: gentax tax --base {base} --tuned {folder} --source DOMAIN")
    write_result(json, {"model": str(folder)})


base_app = typer.Typer(help="The base model that ships with gentax.", no_args_is_help=True)


@base_app.callback()
def _group() -> None:
    """Keep `build` a command of its own."""


@base_app.command()
@with_settings
def build(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the model goes.")] = Path("runs/base"),
    recipe: Annotated[Path | None, typer.Option(help="A YAML file; the shipped model's without it.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="`nano` (0.5 M parameters), `micro` (1.4 M) or `mini` (5.5 M), instead of the recipe's."),
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Test tasks of each domain that the finished model plays.")] = 256,
    *,
    model: o.ModelArgs,
    json: o.Json = None,
) -> None:
    """Pretrain the base model from scratch: play the domains, train a tokenizer and a small Llama on the text.

    The folder also holds `record.json`, how the model was made, and `evaluation.json`, its success on test tasks, by
    which nothing is chosen.

    The larger the model, the longer a step: the shipped `micro` took 53 minutes on two cores, `nano` takes about half
    of that and `mini` three times as long.

    Example: `gentax base build --size nano --out runs/nano`
    """
    from dataclasses import replace

    from gentax.core.files import write_json
    from gentax.core.settings import read_settings, read_yaml
    from gentax.evals.evaluate import evaluate
    from gentax.rollouts import RolloutConfig
    from gentax.training.pretrain import PretrainConfig
    from gentax.training.pretrain import build as run

    values = read_yaml(recipe) or {} if recipe else {}
    config = read_settings(PretrainConfig, values, str(recipe or "recipe"))
    config = config if size is None else replace(config, size=size)
    folder = run(config, out, say=print_text)
    results = {}
    for name, play in {"plain": RolloutConfig(), "thinking": RolloutConfig(thinking=True)}.items():
        result = evaluate(folder, list(config.text), tasks=tasks, config=play, model=model, stop_if_unreadable=False)
        results[name] = result.to_json()
        rows = [[domain, estimate_text(success)] for domain, success in result.success().items()]
        print_table(f"test success %, {name}", ["domain", "success"], rows)
    write_json(folder / "evaluation.json", results)
    print_text(f"model: {folder}")
    write_result(json, {"model": str(folder), "evaluation": results})
