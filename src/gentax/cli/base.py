"""`gentax base build`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gentax.cli.settings_options import takes
from gentax.cli.show import console, estimate, table
from gentax.models.requests import ModelOptions

app = typer.Typer(help="The base model that ships with gentax.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `build` a command of its own."""


@app.command()
@takes(model=ModelOptions)
def build(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the model goes.")] = Path("runs/base"),
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A YAML file; the shipped model's without it.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="`nano` (0.5 M parameters), `micro` (1.4 M) or `mini` (5.5 M), instead of the recipe's."),
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Test tasks of each domain that the finished model plays.")] = 256,
    *,
    model: ModelOptions,
) -> None:
    """Build the base model from nothing: play the domains, train a tokenizer and a small Llama on the text.

    Beside the weights stand `record.json`, how they were made, and `evaluation.json`, what the finished model does on
    test tasks. Nothing is chosen by the latter.

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
    made = read_settings(PretrainConfig, values, str(recipe or "recipe"))
    made = made if size is None else replace(made, size=size)
    folder = run(made, out, say=lambda text: console.print(text, markup=False))
    found = {}
    for name, play in {"plain": RolloutConfig(), "thinking": RolloutConfig(thinking=True)}.items():
        result = evaluate(folder, list(made.text), tasks=tasks, play=play, model=model, stop_if_unreadable=False)
        found[name] = result.to_json()
        table(f"test success %, {name}", ["domain", "success"], [[d, estimate(e)] for d, e in result.success().items()])
    write_json(folder / "evaluation.json", found)
    console.print(f"model: {folder}", markup=False)
