"""Goal-irrelevant text in what the agent reads (arXiv 2601.18217): a richer state, the same task.

Goal, admissible actions, dynamics, reward and outcome are untouched. The text depends on the task and the number of
the step alone, so that all samples of a task read the same. Which domain has which generator, and what
each writes, stands below `Distractor`. The paper trains with them and evaluates without.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.resources import files
from random import Random
from typing import NamedTuple, TypeVar

import gymnasium

from gentax.core.env import stable_seed
from gentax.core.errors import UsageError, unknown
from gentax.wrappers.base import TextWrapper

MAX_VOLUME = 100_000


class Distractor(TextWrapper):
    """Adds the text of a generator to every observation of an episode, or to none.

    Args:
        env: any text environment.
        volume: how much text, the paper's ε; each generator says how it counts. 0 is none, None the generator's own
            usual one (the paper's where it gives one).
        probability: of an episode to have any, drawn from its task.
        kind: "contextual" (things that fit the domain; generic where it has no generator of its own) or "generic"
            (a glimpse of another domain).

    Raises:
        UsageError: a volume that is not an integer in [0, `MAX_VOLUME`], a probability outside [0, 1], an unknown kind.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        volume: int | None = None,
        probability: float = 1.0,
        kind: str = "contextual",
    ) -> None:
        super().__init__(env, volume=volume, probability=probability, kind=kind)
        if volume is not None and not (isinstance(volume, int) and 0 <= volume <= MAX_VOLUME):
            raise UsageError(f"the volume of distractors must be a whole number from 0 to {MAX_VOLUME}, not {volume}")
        if not 0 <= probability <= 1:
            raise UsageError(f"the probability of distractors must be from 0 to 1, not {probability}")
        self._name = self.domain.name
        self.generator = generator(self._name, kind)
        self.volume = self.generator.volume if volume is None else volume
        self.probability = probability
        self.active = False  # whether this episode has distractors
        self._rng = Random()
        self._seed = 0
        self._goal_words: frozenset[str] = frozenset()

    def on_reset(self) -> None:
        assert self.task is not None
        self._seed = stable_seed(self.task.seed, "distractors", self.generator.name)
        self._rng.seed(self._seed - 1)
        self.active = self.volume > 0 and self._rng.random() < self.probability
        self._goal_words = words_of(self.goal)

    def transform_observation(self, observation: str) -> str:
        if not self.active:
            return observation
        self._rng.seed(self._seed + self.steps)
        actions = self.admissible() if self.generator.reads_actions else None
        named = "\n".join((observation, *(actions or ()))).lower()
        scene = Scene(self._name, observation, self.goal, self._goal_words, named)
        return self.generator.write(scene, self.volume, self._rng)


def distract(
    env: gymnasium.Env[str, str], volume: int | None = None, probability: float = 1.0, kind: str = "contextual"
) -> Distractor:
    """Return `env` with distractors: see `Distractor`.

    >>> env = gentax.distract(gentax.make("sokoban"), volume=80, probability=0.5)  # doctest: +SKIP
    """
    return Distractor(env, volume, probability, kind)


_Option = TypeVar("_Option")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE = re.compile(r"(?<=[.!?;])[ \n]+|\n+")


class Scene(NamedTuple):
    """One observation of an episode, before anything is added."""

    domain: str
    observation: str
    goal: str
    goal_words: frozenset[str]  # see `words_of`
    named: str  # in lower case, the observation and the admissible actions (see `DistractorGenerator.reads_actions`)

    def free(self, thing: str) -> bool:
        """Whether nothing that can be acted on is called `thing` (lower case, singular) or by a word of it."""
        return thing not in self.named and self.goal_words.isdisjoint(thing.split())

    def sample(self, rng: Random, things: Sequence[str]) -> str | None:
        """Draw a free one of `things`, or return None when there is none."""
        start = int(rng.random() * len(things))
        for thing in (*things[start:], *things[:start]):
            if self.free(thing):
                return thing
        return None


def words_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, plurals as their singular too."""
    words = {word.lower() for word in _WORD.findall(text)}
    words |= {word[:-1] for word in words if word.endswith("s")} | {word[:-2] for word in words if word.endswith("es")}
    return frozenset(words)


def pick(rng: Random, options: Sequence[_Option]) -> _Option:
    """Draw one of `options`."""
    return options[int(rng.random() * len(options))]


def a(words: str) -> str:
    """Return `words` with the indefinite article."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def append_lines(observation: str, lines: Iterable[str]) -> str:
    """Return the observation with each line on a line of its own after it."""
    return "\n".join((observation, *lines))


def scatter(rng: Random, observation: str, sentences: Iterable[str]) -> str:
    """Return the observation with each sentence at a random one of its sentence or line ends, or before it all.

    Between lines it becomes a line.
    """
    ends = [0, *(match.end() for match in _SENTENCE.finditer(observation)), len(observation)]
    put: dict[int, list[str]] = {}
    for sentence in sentences:
        put.setdefault(pick(rng, ends), []).append(sentence)
    parts, done = [], 0
    for end in sorted(put):
        last = end == len(observation)
        between = "\n" if "\n" in observation and (last or observation[end - 1 : end] in ("", "\n")) else " "
        text = between.join(put[end])
        parts += [observation[done:end], f"{between}{text}" if last and end else f"{text}{between}"]
        done = end
    return "".join((*parts, observation[done:]))


def scatter_remarks(
    things: Sequence[str], looks: Sequence[str], remarks: Sequence[str], scene: Scene, volume: int, rng: Random
) -> str:
    """Scatter max(1, ⌊volume/20⌋) remarks over the observation, fewer where no thing is free.

    A remark holds a {}, for a thing with a look.
    """
    drawn = [scene.sample(rng, things) for _ in range(max(1, volume // 20))]
    lines = [pick(rng, remarks).format(a(f"{pick(rng, looks)} {thing}")) for thing in drawn if thing is not None]
    return scatter(rng, scene.observation, lines)


# Any domain: a glimpse of another domain's state, at most `volume` characters of it but at least a sentence.
#
# The glimpses are first observations of training tasks of Sokoban and ScienceWorld (`snippets.json`). A sentence is
# left out if the goal or the observation has one of its words, and the whole glimpse if nothing of it is left. Like the
# paper's, glimpses show the agent text of domains that it may later be tested on; contextual distractors do not.

INTRODUCTIONS = (
    "Seen in passing, somewhere else:",
    "On a screen in the background:",
    "A note from another game reads:",
    "You overhear someone describe another place:",
)
TRIES = 4  # glimpses looked at before the observation is left as it is
# Words that name nothing.
PLAIN = words_of(
    "a an the this that it its in on of to is are was be and or you i we with from by at as for not no than then also "
    "see here there what which called where have has can all any each every one two first next your my"
)

Snippet = tuple[tuple[str, frozenset[str]], ...]  # sentences, each with its words


def generic(scene: Scene, volume: int, rng: Random) -> str:
    known = scene.goal_words | words_of(scene.observation)
    foreign = [name for name in snippets() if name != scene.domain]
    for _ in range(TRIES):
        snippet = pick(rng, snippets()[pick(rng, foreign)])
        start = int(rng.random() * len(snippet))
        shown: list[str] = []
        length = 0
        for sentence, words in (*snippet[start:], *snippet[:start]):
            if shown and length + len(sentence) > volume:
                break
            if words.isdisjoint(known):
                shown.append(sentence)
                length += len(sentence) + 1
        if shown:
            return append_lines(scene.observation, [f"{pick(rng, INTRODUCTIONS)} {' '.join(shown)}"])
    return scene.observation


@cache
def snippets() -> dict[str, tuple[Snippet, ...]]:
    """Return the glimpses of each domain that there are any of."""
    stored = json.loads((files(__package__) / "snippets.json").read_text(encoding="utf-8"))
    return {name: tuple(map(_sentences, texts)) for name, texts in stored.items()}


def _sentences(text: str) -> Snippet:
    # A line without an end of its own becomes a sentence, so that lines can stand side by side.
    lines = (line if line[-1] in ".!?" else f"{line}." for line in text.split("\n"))
    sentences = [sentence for line in lines for sentence in re.split(r"(?<=[.!?]) ", line)]
    return tuple((sentence, words_of(sentence) - PLAIN) for sentence in sentences)


# ALFWorld: everyday objects with trivial looks, anywhere in the text. ⌊volume/12⌋ sentences, as in arXiv 2601.18217.
#
# An object whose kind is in the scene gets a number that none of its kind has; one that the goal names is never used.

ALFWORLD_THINGS = (
    "mug", "ladle", "saucer", "teapot", "colander", "whisk", "grater", "corkscrew", "strainer", "skillet", "jar",
    "basket", "tin", "crate", "bucket", "canister", "pitcher", "flask", "tray", "hamper", "napkin", "apron",
    "dishcloth", "tea towel", "oven glove", "doily", "handkerchief", "rag",
)  # fmt: skip
ALFWORLD_LOOKS = (
    "worn", "stained", "warm", "labelled", "chipped", "faded", "damp", "spotless", "dented", "polished", "crumpled",
    "scratched", "dusty", "patterned", "borrowed", "heavy", "small", "plain", "folded",
)  # fmt: skip
ALFWORLD_PLACES = ("lies about", "has been left here", "is in plain sight", "catches your eye")


def alfworld(scene: Scene, volume: int, rng: Random) -> str:
    things = [thing for thing in ALFWORLD_THINGS if scene.goal_words.isdisjoint(thing.split())]
    sentences = []
    for _ in range(volume // 12 if things else 0):
        thing = pick(rng, things)
        numbers = [int(n) for n in re.findall(rf"\b{thing} (\d{{1,6}})", scene.named)] if thing in scene.named else []
        fresh = f" {max(numbers, default=0) + 1 + int(rng.random() * 9)}" if thing in scene.named else ""
        sentences.append(
            f"{a(f'{pick(rng, ALFWORLD_LOOKS)} {thing}{fresh}').capitalize()} {pick(rng, ALFWORLD_PLACES)}."
        )
    return scatter(rng, scene.observation, sentences)


# BabyAI: things glimpsed outside the maze, none of a kind or colour it has. max(1, ⌊volume/20⌋) sentences.

BABYAI_THINGS = (
    "harp", "tent", "bicycle", "windmill", "kettle", "scarecrow", "piano", "sledge", "well", "puppet", "flag",
)  # fmt: skip
BABYAI_LOOKS = ("wooden", "rusty", "silent", "tiny", "enormous", "old", "snow-covered", "striped", "wobbly")
BABYAI_REMARKS = (
    "Through a crack you glimpse {} outside.",
    "Someone once drew {} here.",
    "You daydream of {}.",
    "Outside, out of reach, there is {}.",
)
babyai = partial(scatter_remarks, BABYAI_THINGS, BABYAI_LOOKS, BABYAI_REMARKS)


# Crafting: recipes overheard, of things nobody can make here. max(1, ⌊volume/20⌋) lines.

CRAFTING_THINGS = (
    "clockwork bird", "kaleidoscope", "weather vane", "music stand", "paper dragon", "accordion", "sextant",
    "spinning top", "marionette", "hourglass", "music box", "barometer",
)  # fmt: skip
CRAFTING_PARTS = (
    "cogs", "corks", "velvet strips", "pearls", "wax seals", "ribbons", "hinges", "lenses", "tassels", "springs",
)  # fmt: skip


def crafting(scene: Scene, volume: int, rng: Random) -> str:
    parts = [part for part in CRAFTING_PARTS if scene.free(part.removesuffix("s"))]
    lines = []
    for _ in range(max(1, volume // 20) if parts else 0):
        thing = scene.sample(rng, CRAFTING_THINGS)
        if thing is not None:
            number = 2 + int(rng.random() * 7)
            lines.append(f"A traveller tells of {a(thing)} made from {number} {pick(rng, parts)} in another land.")
    return append_lines(scene.observation, lines)


# ScienceWorld: furnishings that the simulator does not have. max(1, ⌊volume/20⌋) lines among the others.

SCIWORLD_THINGS = (
    "calendar", "doormat", "umbrella", "curtain", "coat rack", "chandelier", "lampshade", "wicker chair", "tapestry",
    "doorbell", "hat stand", "wallpaper", "letter opener", "ashtray", "footstool", "cuckoo clock",
)  # fmt: skip
SCIWORLD_LOOKS = ("faded", "crooked", "old-fashioned", "dusty", "striped", "forgotten", "well-kept", "frayed", "ornate")
SCIWORLD_REMARKS = (
    "There seems to be {}, but it is only painted on the wall.",
    "A photograph on the wall shows {}.",
    "You remember {} from another house.",
    "Through the window, far off, you make out {}.",
)
sciworld = partial(scatter_remarks, SCIWORLD_THINGS, SCIWORLD_LOOKS, SCIWORLD_REMARKS)


# Sokoban: things that stand at coordinates outside the room. max(1, ⌊volume/10⌋) lines, as in arXiv 2601.18217.

SOKOBAN_THINGS = ("urn", "ladder", "statue", "lantern", "anvil", "bench", "fountain")
SOKOBAN_LOOKS = ("mossy", "cracked", "painted", "dusty", "leaning")
BEYOND = 9  # rows and columns outside the room that are spoken of
UNKNOWN = 100  # rows that a room of unknown size is taken to have
_NUMBER = re.compile(r"\d{1,4}")


def sokoban(scene: Scene, volume: int, rng: Random) -> str:
    side = _side(scene.goal) or _side(scene.observation) or UNKNOWN
    things = [thing for thing in SOKOBAN_THINGS if scene.free(thing)]
    lines = []
    for _ in range(max(1, volume // 10) if things else 0):
        row, column = side + int(rng.random() * BEYOND), int(rng.random() * (side + BEYOND))
        lines.append(f"A {pick(rng, SOKOBAN_LOOKS)} {pick(rng, things)} stands out of reach at {row},{column}.")
    return append_lines(scene.observation, lines)


@lru_cache(64)
def _side(text: str) -> int:
    """Return a number of rows (or columns) that the room is sure not to exceed, given a text that says its size."""
    return max((int(number) + 1 for number in _NUMBER.findall(text)), default=0)


# TextWorldExpress: sounds and sights from far away, shared by all its games. max(1, ⌊volume/20⌋) sentences.

TWX_THINGS = (
    "tram", "church bell", "foghorn", "lawnmower", "accordion", "brass band", "woodpecker", "ferry",
    "hot-air balloon", "street sweeper", "choir", "sailing boat", "weather vane", "fairground organ",
)  # fmt: skip
TWX_LOOKS = ("distant", "lonely", "old", "slow", "cheerful", "famous", "tired", "invisible")
TWX_REMARKS = (
    "Somewhere far away there is {}.",
    "You think of {}.",
    "A poster advertises {}.",
    "Nobody else seems to notice {} in the distance.",
)
twx = partial(scatter_remarks, TWX_THINGS, TWX_LOOKS, TWX_REMARKS)


# WebShop: advertisements, products that cannot be had, facts that do not matter (counts as in arXiv 2601.18217).
#
# A page of results gets max(1, ⌊volume/30⌋) advertisements and max(1, ⌊volume/10⌋), at most ten, products that say
# they cannot be selected; a product's page max(1, ⌊volume/25⌋) facts and max(1, ⌊volume/30⌋) advertisements; other
# pages nothing. The paper does not give the first two counts.

WEBSHOP_CATEGORIES = (
    "garden hoses", "piano lessons", "roof tiles", "canoe trips", "dog walking", "beekeeping", "car washes",
    "window cleaning", "folk dancing", "house plants", "train tickets", "crosswords", "pottery courses", "sailing",
    "tax advice", "language lessons", "bird watching", "chimney sweeping", "chess clubs", "camp sites",
    "model trains",
)  # fmt: skip
WEBSHOP_SLOGANS = (
    "now closer than ever", "ask your neighbour", "a smile is included", "since the old days", "because it is Monday",
    "you have waited long enough", "simply better", "made with patience", "for people like you", "why not today",
    "what a surprise", "the talk of the town", "once more with feeling", "rain or shine", "nothing to lose",
    "good to the last detail", "all year round", "by friends for friends", "step by step", "see for yourself",
)  # fmt: skip
WEBSHOP_PRODUCTS = (
    "birdhouse", "weather vane", "sundial", "rocking chair", "umbrella stand", "doorbell", "kite", "xylophone",
    "wheelbarrow", "mailbox", "globe", "metronome", "telescope", "abacus", "snow globe",
)  # fmt: skip
WEBSHOP_LOOKS = (
    "antique", "patented", "signed", "oversized", "refurbished", "limited", "travel", "festive", "nautical",
    "illuminated", "miniature", "musical", "numbered", "collectible", "weatherproof",
)  # fmt: skip
WEBSHOP_FACTS = (
    "The parcel has a barcode on one side.", "The page was last proofread on a Tuesday.",
    "The manual is stapled twice.", "The carton can be recycled.", "The photographs were taken indoors.",
    "The warehouse has a new floor.", "The label is printed in two languages.", "The invoice comes by post.",
    "The seller keeps a tidy desk.", "The packing list has one line.", "The stock was counted in spring.",
    "The tape on the carton is transparent.",
)  # fmt: skip
WEBSHOP_PRODUCT = re.compile(r"buy now")
WEBSHOP_RESULTS = re.compile(r"\bresults?\b|\bpage \d|\bnext\b|\bprev")


def webshop(scene: Scene, volume: int, rng: Random) -> str:
    count = max(1, volume // 30)
    if WEBSHOP_PRODUCT.search(scene.named):
        facts = [pick(rng, WEBSHOP_FACTS) for _ in range(max(1, volume // 25))]
        return append_lines(scene.observation, facts + _advertisements(scene, count, rng))
    if WEBSHOP_RESULTS.search(scene.named):
        lines = _advertisements(scene, count, rng)
        for _ in range(min(10, max(1, volume // 10))):
            look, product = scene.sample(rng, WEBSHOP_LOOKS), scene.sample(rng, WEBSHOP_PRODUCTS)
            if look is not None and product is not None:
                lines.append(f"{look.capitalize()} {product} (sold out, cannot be selected)")
        return append_lines(scene.observation, lines)
    return scene.observation


def _advertisements(scene: Scene, count: int, rng: Random) -> list[str]:
    drawn = [scene.sample(rng, WEBSHOP_CATEGORIES) for _ in range(count)]
    return [f"Advertisement: {category}, {pick(rng, WEBSHOP_SLOGANS)}!" for category in drawn if category is not None]


KINDS = ("contextual", "generic")


@dataclass(frozen=True)
class DistractorGenerator:
    """One way to distract. `write(scene, volume, rng)` returns the observation with its text in it."""

    name: str
    write: Callable[[Scene, int, Random], str]
    volume: int  # the usual one
    reads_actions: bool = True
    """Whether the admissible actions are looked at on every step. Not where they are always the same few words, which
    the generator's own avoid, nor where listing them takes longer than a step, as in ScienceWorld."""


GENERIC = DistractorGenerator("generic", generic, 200, reads_actions=False)
CONTEXTUAL = {
    entry.name: entry
    for entry in (
        DistractorGenerator("sokoban", sokoban, 80, reads_actions=False),  # the paper's volume, as the next two
        DistractorGenerator("webshop", webshop, 30),
        DistractorGenerator("alfworld", alfworld, 300),
        DistractorGenerator("sciworld", sciworld, 60, reads_actions=False),
        DistractorGenerator("crafting", crafting, 60),
        DistractorGenerator("babyai", babyai, 60, reads_actions=False),
        DistractorGenerator("twx", twx, 60),
    )
}


def generator(domain: str, kind: str) -> DistractorGenerator:
    """Return the generator for a domain; those called `FAMILY-GAME` share their family's. Raises UsageError."""
    if kind not in KINDS:
        raise unknown("kind of distractors", kind, KINDS)
    if kind == "generic":
        return GENERIC
    return CONTEXTUAL.get(domain) or CONTEXTUAL.get(domain.partition("-")[0], GENERIC)
