"""How the base model that ships with gentax is made, from nothing: text, tokenizer, weights, record.

The text is the domains' own: episodes of experts, of experts that err and of random play, on train tasks only, written
with every context and with and without thinking. An erring expert's slips are read, not learned; what it does to
mend them is learned. The model is a stock Llama of 0.5 to 5.5 M parameters, the tokenizer a byte-level BPE on the same
text, so that any text at all can be read.
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from gentax.core import Episode, Step, UsageError, unknown
from gentax.core.files import atomic_folder, lock_folder
from gentax.core.settings import plain, settings
from gentax.domains import make
from gentax.models.action_format import ACTION, ACTION_END, THINK, THINK_END
from gentax.models.chat import ChatCodec
from gentax.models.loading import silence_transformers
from gentax.policies.load import ExpertPolicy, RandomPolicy
from gentax.rollouts import RolloutConfig, rollout
from gentax.rollouts.prompt import build_message
from gentax.training.sft import SFTSettings, fine_tune
from gentax.training.trajectories import Example, examples, exchanges

CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
SIZES = {  # (hidden, layers, heads, key-value heads, width of a head, feed-forward)
    "nano": (96, 3, 4, 2, 16, 256),
    "micro": (160, 4, 4, 2, 32, 448),
    "mini": (256, 7, 8, 2, 32, 704),
}


@settings
class PretrainText:
    """The text of one domain."""

    tasks: int = 4000
    """Train tasks played by experts; all of a split that has fewer."""
    noise: tuple[float, ...] = (0.0, 0.2)
    """Shares of slips of the experts; the tasks are dealt out over them."""
    random: int = 100
    """Train tasks played at random, for reading only."""
    weight: float = 1.0
    """Share of the tokens learned from, against the other domains'."""
    observed: float = 0.5
    """Weight of what is read, against 1 for what the agent says."""
    admissible: bool = False
    """Whether admissible actions are asked for and listed; some domains take long over that."""
    level: str | None = None
    """The level; the domain's default when null."""


def _text() -> dict[str, PretrainText]:
    # Observations weigh little where the next one follows from the action, as in Sokoban and BabyAI, and half
    # elsewhere: a small model learns to copy names by predicting what it reads.
    return {
        "sokoban": PretrainText(
            tasks=12000, noise=(0.0, 0.15), observed=0.1, admissible=True, level="6x6-1-3-12", weight=2.0
        ),
        "sciworld": PretrainText(tasks=1300, noise=(0.0, 0.1), random=10, level="easy"),
        "alfworld": PretrainText(tasks=3000, noise=(0.0, 0.1), random=20, weight=0.8, level="small"),
        "webshop": PretrainText(tasks=6000, noise=(0.0, 0.15), weight=0.5, level="4k-easy"),
        "crafting": PretrainText(tasks=8000, noise=(0.0, 0.15), weight=0.9, level="shallow"),
        "babyai": PretrainText(tasks=6000, noise=(0.0, 0.15), observed=0.2, weight=0.6, level="small"),
        "twx-cooking": PretrainText(tasks=1000, noise=(0.0, 0.15), random=20, weight=0.5, level="easy"),
        "twx-mapreader": PretrainText(tasks=1000, noise=(0.0, 0.15), random=20, weight=0.3, level="easy"),
    }


def _formats() -> dict[str, float]:
    # Thoughts take a third of the text: a model that has seen few of them is half as good when asked to think.
    return {
        "full": 0.45,
        "full, thinking": 0.28,
        "window(1)": 0.07,
        "window(2)": 0.1,
        "window(2), thinking": 0.05,
        "window(2), admissible": 0.05,
    }


@settings
class PretrainConfig:
    """How a base model is built."""

    size: str = "micro"
    """`nano` (0.5 M parameters), `micro` (1.4 M) or `mini` (5.5 M)."""
    text: dict[str, PretrainText] = field(default_factory=_text)
    """What is read, by domain."""
    formats: dict[str, float] = field(default_factory=_formats)
    """How episodes are written, and how often: a context, with or without thinking and listed actions."""
    vocabulary: int = 2048
    """Entries of the tokenizer, at most."""
    seed: int = 0
    """Of the tasks, the weights and the order."""
    sft: SFTSettings = field(default_factory=lambda: SFTSettings(steps=11000))
    """How it is trained."""


def build(recipe: PretrainConfig, out: str | Path, say: Callable[[str], None] = print) -> Path:
    """Build a base model and write it to the folder `out`, which is replaced, with `record.json` beside the weights.

    Raises:
        UsageError: an unknown size, domain or format; another process is building there.
    """
    if recipe.size not in SIZES:
        raise unknown("size", recipe.size, SIZES)
    with lock_folder(out, "building a base model"):
        return _build(recipe, Path(out), say)


def _build(recipe: PretrainConfig, out: Path, say: Callable[[str], None]) -> Path:
    import torch

    began = time.monotonic()
    text: dict[str, list[Episode]] = {}
    for name, how in recipe.text.items():
        start = time.monotonic()
        text[name] = play_text(name, how, recipe.seed)
        solved = np.mean([e.success for e in text[name]])
        say(f"{name}: {len(text[name])} episodes, {solved:.0%} solved, in {time.monotonic() - start:.0f} s")
    formats = {read_format(name): share for name, share in recipe.formats.items()}
    rng = np.random.default_rng(recipe.seed)
    tokenizer = train_tokenizer(_lines(text, list(formats), rng), recipe.vocabulary)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe.size, tokenizer)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, vocabulary {len(tokenizer)}")
    losses: list[dict[str, float]] = []

    def on_step(row: dict[str, float]) -> None:
        if int(row["step"]) % 100 == 1:
            losses.append({k: round(v, 4) for k, v in row.items()})
            say(f"  step {row['step']:.0f} loss {row['loss']:.3f} tokens {row['tokens'] / 1e6:.2f} M {row['done']:.0%}")

    fine_tune(model, _stream(text, formats, recipe, ChatCodec(tokenizer)), recipe.sft, on_step)
    with atomic_folder(out) as folder:
        with silence_transformers():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        record = {
            "recipe": plain(recipe),
            "episodes": {name: len(episodes) for name, episodes in text.items()},
            "losses": losses,
            "minutes": round((time.monotonic() - began) / 60, 1),
            "versions": {name: version(name) for name in ("gentax", "torch", "transformers", "tokenizers", "numpy")},
            "python": platform.python_version(),
        }
        (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    return out


def play_text(name: str, how: PretrainText, seed: int) -> list[Episode]:
    """Play the episodes a domain's text is made of: train tasks only, with thoughts where the expert has them."""
    env = make(name, how.level)
    try:
        tasks = env.tasks("train", min(how.tasks, env.size("train")))
    finally:
        env.close()
    config = RolloutConfig(thinking=True, admissible=how.admissible)
    episodes: list[Episode] = []
    for k, noise in enumerate(how.noise):
        episodes += rollout(ExpertPolicy(noise), tasks[k :: len(how.noise)], config=config, seed=seed)
    episodes += rollout(RandomPolicy(), tasks[: how.random], config=config, seed=seed)
    return [episode for episode in episodes if episode.steps]


def read_format(name: str) -> RolloutConfig:
    """Read a way of writing, such as "window(2), thinking, admissible"."""
    context, *extras = (part.strip() for part in name.split(","))
    for extra in extras:
        if extra not in ("thinking", "admissible"):
            raise UsageError(f"unknown format {name!r}: after the context only 'thinking' and 'admissible' may follow")
    return RolloutConfig(context=context, thinking="thinking" in extras, admissible="admissible" in extras)


def train_tokenizer(lines: Iterator[str], vocabulary: int) -> Any:
    """Train a byte-level BPE with the tags of the reply grammar as control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", THINK, THINK_END, ACTION, ACTION_END]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=special[2:],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(size: str, tokenizer: Any) -> Any:
    """Return an untrained Llama of one of `SIZES` for the tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, groups, head, wide = SIZES[size]
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=wide,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            head_dim=head,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def _lines(text: Mapping[str, list[Episode]], formats: list[RolloutConfig], rng: np.random.Generator) -> Iterator[str]:
    """Yield the text the tokenizer is trained on: about the same number of characters from every domain."""
    for episodes in text.values():
        budget = 3_000_000
        for i in itertools.islice(itertools.cycle(rng.permutation(len(episodes)).tolist()), 4 * len(episodes)):
            episode, config = episodes[i], formats[int(rng.integers(len(formats)))]
            for n, step in enumerate(episode.steps):
                shown = step.admissible if config.admissible else None
                before = episode.steps[:n]
                message = build_message(config, episode.rules, episode.goal, before, step.observation, shown)[0]
                yield message
                yield step.action
                if config.thinking:
                    yield step.thought
                budget -= len(message)
            if budget < 0:
                break


def _stream(
    text: Mapping[str, list[Episode]], formats: Mapping[RolloutConfig, float], recipe: PretrainConfig, codec: ChatCodec
) -> Callable[[np.random.Generator], Example]:
    """Return a function that draws examples so that each domain has its share of the tokens."""
    names = list(text)
    want = np.array([recipe.text[name].weight for name in names])
    shares = np.array(list(formats.values()))
    configs = list(formats)
    taken = np.ones(len(names))
    cache: dict[tuple[str, int, int], list[Example]] = {}

    def learned(step: Step) -> bool:
        return bool(step.thought)  # an expert gives its reasons; a random action has none

    def draw(rng: np.random.Generator) -> Example:
        d = int(np.argmin(taken / want))  # the domain furthest behind its share
        i = int(rng.integers(len(text[names[d]])))
        k = int(rng.choice(len(configs), p=shares / shares.sum()))
        key = (names[d], i, k)
        if key not in cache:
            turns = exchanges(text[names[d]][i], configs[k], learned)
            cache[key] = list(examples(turns, codec, observed=recipe.text[names[d]].observed))
        example = cache[key][int(rng.integers(len(cache[key])))]
        taken[d] += len(example.ids_T)
        return example

    return draw
