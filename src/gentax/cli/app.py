"""Every command under one name."""

from __future__ import annotations

import typer

from gentax.cli import (
    advise,
    base,
    check,
    demo,
    diagnose,
    diversity,
    domains,
    evaluate,
    merge,
    play,
    probe,
    reference,
    rollout,
    study,
    tax,
    train,
    verify,
)

app = typer.Typer(
    name="gentax",
    help="Measure, forecast and cut the generalization tax of LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("domains")(domains.domains)
app.command("check")(check.check)
app.command("play")(play.play)
app.command("rollout")(rollout.rollout)
app.command("evaluate")(evaluate.evaluate)
app.command("verify")(verify.verify)
app.command("diagnose")(diagnose.diagnose)
app.command("probe")(probe.probe)
app.command("diversity")(diversity.diversity)
app.command("advise")(advise.advise)
app.command("train")(train.train)
app.command("merge")(merge.merge)
app.command("tax")(tax.tax)
app.command("reference")(reference.reference)
app.add_typer(study.app, name="study")
app.add_typer(base.app, name="base")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        import gentax

        print(f"gentax {gentax.__version__}")
        raise typer.Exit()
