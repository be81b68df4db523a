"""A real pretrained model in minutes: how fast it plays and learns here, and what training it costs it elsewhere.

    pip install "gentax[gemma,trl]"                   # without trl only gentax's side of learning is timed
    python benchmarks/real_model.py --budget 30 --json runs/real-model/figures.json
    python benchmarks/real_model.py --model FOLDER …  # another Hugging Face folder, or `base`

Unless `--model` names another, the model is Gemma 3 270M (see `gemma.py` for where it comes from and its terms): a base
model, without instruction tuning and without a chat template. Asked as an instructed model is, it writes the next
lines of the game and no action; so its prompts begin with two examples from no domain of ours (`few_shot.jinja`), for
every policy alike, and list the admissible actions, as the paper's do. In order, everything kept under `--folder`:

  model      assembled and converted, once
  replies    what it says, as it comes, in the first episodes of each domain
  rates      playing beside `generate` on every step's whole prompt; a GRPO step with LoRA beside TRL's; peak memory
  study      warm-up by imitation, GRPO on one source, and all three policies on the same test tasks (`tax_study.py`)

The study takes what the budget leaves, at least `tax_study.LEAST`: the budget sizes it and does not cut it off. A run
that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gemma import gemma
from model_rates import Played, alone, episodes_to_learn, learn, learn_with_trl, play_all
from tax_study import DTYPE, EVALUATING, Plan, Study, check_source, datamix, installed, table, within
from training_step import quiet, trl_version

from gentax.core import UsageError
from gentax.core.console import one_line
from gentax.core.files import write_json
from gentax.core.settings import plain
from gentax.models.options import ModelOptions
from gentax.rollouts import RolloutConfig
from gentax.training.config import LoraConfig

FEW_SHOT = Path(__file__).parent / "few_shot.jinja"
DOMAINS = ("sciworld", "alfworld", "webshop")  # those of the warm-up; elsewhere it succeeds at nothing
PROBED = 4  # episodes of each domain whose time is taken, by either side
LEARNED = 8  # sequences of the timed step


def replies(played: dict[str, Played]) -> dict[str, Any]:
    """Return what the model said first in each domain, and how often it could be read and was allowed."""
    found = {}
    for name, one in played.items():
        steps = [step for episode in one.episodes for step in episode.steps]
        found[name] = {
            "with_an_action": sum(bool(step.action) for step in steps) / len(steps),
            "allowed": sum(step.valid for step in steps) / len(steps),
            "first": [one_line(episode.steps[0].text, 160) for episode in one.episodes[:3]],
            "commonest": Counter(one_line(step.text, 60) for step in steps).most_common(3),
        }
    return found


def rates(
    model: str, options: ModelOptions, names: list[str], how: RolloutConfig, trl: bool, say: Any
) -> dict[str, Any]:
    """Time playing and learning, each beside its peer."""
    say(f"playing {PROBED} episodes of each domain, and the same by generate")
    ours = alone(play_all, model, options, dict.fromkeys(names, PROBED), how)
    theirs = alone(play_all, model, options, dict.fromkeys(names, PROBED), how, True)
    found: dict[str, Any] = {
        "playing": {name: {"gentax": ours[name].figures(), "generate": theirs[name].figures()} for name in names},
        "replies": replies(ours),
    }
    say(f"learning from {LEARNED} sequences")
    episodes = episodes_to_learn(ours[names[0]].episodes, LEARNED)
    found["learning"] = {"gentax": alone(learn, model, options, episodes, LoraConfig(), 2)}
    if trl:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                found["learning"]["TRL"] = alone(learn_with_trl, model, options, episodes, LoraConfig(), 2, scratch)
        except Exception as fault:  # of a peer: said, and no reason to lose the minutes so far
            say(f"TRL failed: {type(fault).__name__}: {fault}")
    return found


def show_rates(found: dict[str, Any]) -> None:
    """Print the rates for a person."""
    print(f"\n{'playing':22}{'episodes':>9}{'s':>8}{'written/s':>11}{'tokens/s':>10}{'steps/s':>9}{'32 episodes':>13}")
    for name, sides in found["playing"].items():
        for side, of in sides.items():
            print(
                f"{name + ', ' + side:22}{of['episodes']:9}{of['seconds']:8.1f}{of['written_per_s']:11.1f}"
                f"{of['tokens_per_s']:10.0f}{of['steps_per_s']:9.2f}{of['minutes_of_32_episodes']:9.1f} min"
            )
    print(f"\n{'learning':22}{'sequences':>10}{'tokens':>9}{'s/step':>9}{'tokens/s':>10}{'peak MB':>9}")
    for side, of in found["learning"].items():
        print(
            f"{side:22}{of['sequences']:10}{of['tokens']:9}{of['s_per_step']:9.1f}{of['tokens_per_s']:10.0f}"
            f"{of['peak_mb']:9.0f}"
        )
    print("\nreplies of the model as it came")
    for name, of in found["replies"].items():
        print(f"{name}: {of['with_an_action']:.0%} have an action, {of['allowed']:.0%} are allowed")
        print("\n".join(f"  | {text}" for text in of["first"]))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=30, metavar="MINUTES", help="for all of it, about")
    parser.add_argument("--folder", type=Path, default=Path("runs/real-model"), help="where everything is kept")
    parser.add_argument("--model", help="a model folder, or `base`, in place of Gemma 3 270M")
    parser.add_argument("--gguf", type=Path, help="the .gguf file or a folder with its parts, if not installed")
    parser.add_argument("--domains", nargs="+", default=list(DOMAINS), help="those of them that are installed")
    parser.add_argument("--source", help="the domain trained on; the first of --domains")
    parser.add_argument("--seeds", type=int, default=1, help="trainings by GRPO")
    parser.add_argument("--batch", nargs=2, type=int, default=(4, 4), help="groups of a step, and episodes of a group")
    parser.add_argument("--context", default="window(2)", help='"window(2)", as in the paper, or "full"')
    parser.add_argument("--prompt-template", help='a Jinja file; "" for none; few_shot.jinja for Gemma')
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default=DTYPE, help="of the weights, for playing and training; see `tax_study.py`")
    parser.add_argument("--json", type=Path, help="write all figures to this file too")
    args = parser.parse_args(argv)
    quiet()
    begun = time.monotonic()
    try:
        names = installed(args.domains)
        source = args.source or names[0]
        check_source(source, names)
        model = args.model or str(gemma(args.folder, args.gguf))
    except UsageError as error:
        parser.error(str(error))
    options = ModelOptions(device=args.device, dtype=args.dtype)
    template = args.prompt_template
    if template is None:
        template = "" if args.model else str(FEW_SHOT)
    how = RolloutConfig(context=args.context, admissible=True, max_new_tokens=32, prompt_template=template)

    def say(what: str) -> None:
        print(f"[{(time.monotonic() - begun) / 60:5.1f} min] {what}", flush=True)

    peer = trl_version()
    machine = {name: version(name) for name in ("torch", "transformers")} | {"trl": peer, "cores": os.cpu_count()}
    print(f"{model}, {args.dtype}; {machine}")
    order = [source, *(name for name in names if name != source)]
    kept = args.folder / "rates.json"
    if not kept.is_file():
        write_json(kept, rates(model, options, order, how, peer is not None, say))
    measured = json.loads(kept.read_text())
    show_rates(measured)

    def plan() -> Plan:
        one = sum(of["gentax"]["seconds"] / of["gentax"]["episodes"] for of in measured["playing"].values())
        left = max(0.0, args.budget * 60 - (time.monotonic() - begun))
        return Plan(
            model=model,
            source=source,
            domains=tuple(order),
            mix=datamix(source),
            seeds=args.seeds,
            groups=args.batch[0],
            group=args.batch[1],
            play=plain(how),
            tasks=within("tasks", EVALUATING * left / one / (2 + args.seeds)),
            seconds=left,
            learned_per_s=measured["learning"]["gentax"]["tokens_per_s"],
        )

    study = Study(args.folder / "study", plan, options, say=say)
    study.run()
    found = study.figures()
    print(f"\n{table(found)}")
    say("done")
    if args.json:
        facts = {"machine": machine, "model": model, "dtype": args.dtype, "play": plain(how)}
        write_json(args.json, facts | {"rates": measured, "study": found})


if __name__ == "__main__":
    main()
