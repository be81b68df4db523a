"""Interface and semantic shifts (arXiv 2603.12011): the same task written, laid out or named another way.

`Calls` writes an action as a call, `Menu` as a number from a list. Text in the old grammar reaches the environment as
the empty action, which every domain refuses, so that a slip still costs a step. `Layout` cuts an observation into
statements, those with a name before them (`Door: open`, `Box 2,3`) into name and value; no word is lost.

`Rename` gives things other names: a dictionary of disjoint pairs, read both ways at once, so that translating twice
gives any text back. What the agent reads goes through it, and so does what it writes. Left out: grammar beyond the
plural; articles suit the new words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from random import Random

import gymnasium

from gentax.core.env import ExpertAction, stable_seed
from gentax.core.errors import UsageError, unknown
from gentax.domains.crafting import MATERIALS, PRODUCTS
from gentax.wrappers.base import TextWrapper

REFUSED = ""
ENTRIES = 40  # actions listed at most; some environments accept thousands

_PARTICLES = r"(?:to|on|in|at|up|down|off|out|into|onto|around|about|from|over|through)"
_VERB = re.compile(rf"(\w+(?: {_PARTICLES}\b)*)(?: (.+)|\[(.*)\])?", re.DOTALL)
_JOINT = re.compile(r" (to|on|in|into|onto|with|from|using|and) ")
_CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)
_CALL_JOINT = re.compile(r", (to|on|in|into|onto|with|from|using|and) ")
_VERBATIM = "do"


def call(action: str) -> str:
    """Write an action as a call; `uncall` gives every string back.

    >>> [call(action) for action in ("up", "go to shelf 1", "move cup to table", "search[red shoes]")]
    ['up()', 'go_to(shelf 1)', 'move(cup, to table)', 'search("red shoes")']
    """
    parts = _VERB.fullmatch(action)
    if parts is not None:
        verb, rest, bracketed = parts.groups()
        inside = _JOINT.sub(r", \1 ", rest or "") if bracketed is None else f'"{bracketed}"'
        written = f"{verb.replace(' ', '_')}({inside})"
        if uncall(written) == action:
            return written
    return f"{_VERBATIM}({action})"  # what has no such form is called by its own words


def uncall(text: str) -> str | None:
    """Read an action that was written as a call, or return None for a text that is no call."""
    parts = _CALL.fullmatch(text)
    if parts is None:
        return None
    verb, inside = parts.groups()
    if verb == _VERBATIM:
        return inside
    verb = verb.replace("_", " ")
    if len(inside) > 1 and inside[0] == inside[-1] == '"':
        return f"{verb}[{inside[1:-1]}]"
    return " ".join((verb, _CALL_JOINT.sub(r" \1 ", inside))) if inside else verb


class Calls(TextWrapper):
    """Takes actions written as calls, `go_to(shelf 1)` for `go to shelf 1`, and nothing else."""

    def transform_action(self, action: str) -> str:
        inner_action = uncall(action)
        return REFUSED if inner_action is None else inner_action

    def write_action(self, action: str) -> str:
        return call(action)

    def transform_rules(self, rules: str) -> str:
        return (
            f"{rules} Write every action as a call: its verb with words joined by _, the rest in brackets, a comma "
            "before a second part. So `look` is look(), `go to door` is go_to(door), `put cup on table` is "
            'put(cup, on table), `find[cup]` is find("cup").'
        )


class Menu(TextWrapper):
    """Numbers the admissible actions below each observation, the first 40 at most; an action is a number.

    `0 ACTION` is any action that is not in the list: text of one's own, or names the domain knows but does not list.
    Listing costs what `admissible` costs: microseconds in most domains, 15 to 90 ms in sciworld.

    Raises:
        UsageError: from `reset`, where the domain cannot list its actions.
    """

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        super().__init__(env)
        self._entries: list[str] = []
        self._rest: list[str] = []

    def transform_observation(self, observation: str) -> str:
        actions = self.text_env.admissible()
        if actions is None:
            raise UsageError(f"domain {self.domain.name!r} does not list its actions, so there is no menu of them")
        self._entries, self._rest = actions[:ENTRIES], actions[ENTRIES:]
        lines = [f"{number} {entry}" for number, entry in enumerate(self._entries, 1)]
        return "\n".join((observation, *lines, "0 ACTION for any other action"))

    def transform_action(self, action: str) -> str:
        number, _, other = action.strip().partition(" ")
        if number == "0":
            return other.strip()
        known = number.isascii() and number.isdigit() and not other and len(number) < 4
        return self._entries[int(number) - 1] if known and 0 < int(number) <= len(self._entries) else REFUSED

    def write_action(self, action: str) -> str:
        return str(self._entries.index(action) + 1) if action in self._entries else f"0 {action}"

    def transform_rules(self, rules: str) -> str:
        return f"{rules} Choose an action from the numbered list: write its number alone."

    def admissible(self) -> list[str]:
        return [*map(str, range(1, len(self._entries) + 1)), *(f"0 {action}" for action in self._rest)]


_END = re.compile(r"(?<=[.!?])\s+|\s*\n\s*")
_NAMED = re.compile(r"([^\W\d][\w ]{0,40}?)(?:: +(.+)| (\d+,\d+(?: \d+,\d+)*)\.?)", re.DOTALL)
_REST = "text"  # the key of what has no name


def statements(text: str) -> list[str]:
    """Cut a text at the ends of its lines and sentences."""
    return [part for part in _END.split(text.strip()) if part]


def prose(text: str) -> str:
    """Return the text as one paragraph; a statement without an end gets one."""
    return " ".join(part if part[-1] in ".!?:;,|" else f"{part}." for part in statements(text))


def listed(text: str) -> str:
    """Return the text as a list with a dash before each statement."""
    return "\n".join([f"- {part}" for part in statements(text)])


def as_json(text: str) -> str:
    """Return the text as a JSON object on one line: names to values, headings to the statements under them."""
    fields: dict[str, list[str]] = {}
    heading = _REST
    for part in statements(text):
        named = _NAMED.fullmatch(part)
        if named:
            fields.setdefault(named[1], []).append(named[2] or named[3])
        elif part.endswith(":"):
            heading = part[:-1] or _REST
            fields.setdefault(heading, [])
        else:
            fields.setdefault(heading, []).append(part)
    return json.dumps(
        {key: value[0] if len(value) == 1 else value for key, value in fields.items()}, ensure_ascii=False
    )


LAYOUTS: dict[str, Callable[[str], str]] = {"prose": prose, "list": listed, "json": as_json}


class Layout(TextWrapper):
    """Lays every observation out as `prose`, a `list` or `json`.

    Raises:
        UsageError: an unknown layout.
    """

    def __init__(self, env: gymnasium.Env[str, str], layout: str) -> None:
        super().__init__(env, layout=layout)
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        self.layout = layout
        self._layout = LAYOUTS[layout]

    def transform_observation(self, observation: str) -> str:
        return self._layout(observation)


NOUNS: dict[str, tuple[str, ...]] = {
    "sokoban": ("wall", "target", "box", "room"),
    "sciworld": (
        "kitchen", "bathroom", "hallway", "bedroom", "workshop", "greenhouse", "foundry", "studio", "room", "door",
        "table", "chair", "counter", "cupboard", "drawer", "fridge", "freezer", "oven", "stove", "sink", "closet",
        "shelf", "desk", "bed", "bathtub", "toilet", "box", "jar", "cup", "bowl", "pot", "bucket", "picture",
        "painting", "thermometer", "stopwatch", "lighter", "axe", "shovel", "fountain", "ground", "substance", "animal",
        "plant", "egg", "water", "soap", "wood", "agent", "apple", "banana", "orange", "potato", "tree", "seed", "soil",
    ),
    "alfworld": (
        "armchair", "bathtubbasin", "bed", "cabinet", "cart", "coffeemachine", "coffeetable", "countertop", "desk",
        "diningtable", "drawer", "dresser", "fridge", "garbagecan", "microwave", "ottoman", "safe", "shelf",
        "sidetable", "sinkbasin", "sofa", "stoveburner", "toilet", "desklamp", "floorlamp", "alarmclock", "apple",
        "baseballbat", "basketball", "book", "bowl", "box", "bread", "candle", "cd", "cellphone", "cloth", "creditcard",
        "cup", "dishsponge", "egg", "fork", "handtowel", "kettle", "keychain", "knife", "ladle", "laptop", "lettuce",
        "mug", "newspaper", "pan", "pen", "pencil", "pillow", "plate", "plunger", "pot", "potato", "remotecontrol",
        "soapbar", "soapbottle", "spatula", "spoon", "statue", "tissuebox", "tomato", "towel", "vase", "watch",
    ),
    "crafting": (*MATERIALS, *PRODUCTS),
    "webshop": (
        "shirt", "sweater", "blouse", "vest", "jacket", "coat", "trousers", "socks", "skirt", "sneakers", "boots",
        "sandals", "slippers", "chair", "sofa", "bench", "stool", "desk", "table", "cabinet", "wardrobe", "bookcase",
        "shampoo", "lotion", "soap", "lipstick", "headphones", "speaker", "keyboard", "tablet", "charger", "battery",
        "pan", "kettle", "mug", "bowl", "blender", "toaster", "mixer", "coffee", "tea", "cookies", "crackers", "honey",
        "jam", "tent", "hammock", "lantern", "backpack", "wallet", "suitcase", "hose", "shovel",
    ),
    "babyai": ("key", "ball", "box", "door", "wall", "room"),
    "twx": (
        "kitchen", "pantry", "corridor", "bathroom", "bedroom", "garden", "backyard", "street", "door", "fridge",
        "oven", "stove", "counter", "table", "cupboard", "shelf", "sink", "knife", "cookbook", "recipe", "meal", "coin",
        "map", "box", "chamber", "parlor", "room", "toaster", "chair",
    ),
}  # fmt: skip

SIGNS: dict[str, str] = {"sokoban": "#_.$*@+"}
FRESH_SIGNS = "%^&=!~?:|<>/"  # signs to put in their place


_WORDS = re.compile(r"[^\W\d_]+")
_WORDS_AND_SIGNS = re.compile(r"[^\W\d_]+|(?<!\S)(?:[^\w\s]|_)+(?!\S)")  # signs only where they stand by themselves


class Rename(TextWrapper):
    """Renames things in rules, goal, observations, actions and thoughts: whole words, plurals too, their case kept.

    An old name is not understood any more. Signs are renamed in runs of signs alone, such as the rows of a grid.

    Args:
        env: any text environment.
        words: what to rename. A mapping gives the new words and is read both ways, so that {"box": "target"} swaps
            the two; for a list, words are invented; None is the domain's nouns and signs (`NOUNS`, `SIGNS`).
        seed: of the invented words.

    Raises:
        UsageError: a word that is not two or more plain letters in lower case, a word in two pairs, or no words
            for a domain that has no list.
    """

    def __init__(
        self, env: gymnasium.Env[str, str], words: Mapping[str, str] | Iterable[str] | None = None, seed: int = 0
    ) -> None:
        words = list(words) if words is not None and not isinstance(words, Mapping) else words
        super().__init__(env, words=words, seed=seed)
        name = self.text_env.domain.name
        rng = Random(stable_seed("rename", seed))
        signs = ""
        if words is None:
            nouns = NOUNS.get(name) or NOUNS.get(name.partition("-")[0])
            if nouns is None:
                raise UsageError(f"domain {name!r} has no list of nouns to rename: say which, words=[...]")
            words, signs = nouns, SIGNS.get(name, "")
        self.pairs = dict(words) if isinstance(words, Mapping) else _invented(words, rng)
        self._table = _table(self.pairs)
        fresh = "".join(rng.sample(FRESH_SIGNS, len(signs)))
        self._signs = str.maketrans(signs + fresh, fresh + signs)
        self._pattern = _WORDS_AND_SIGNS if signs else _WORDS
        self._goal = ""

    def translate(self, text: str) -> str:
        """Return `text` in the other words. Twice is the text itself, whatever it is."""
        return self._pattern.sub(self._other, text)

    transform_observation = transform_action = write_action = transform_rules = translate

    def _other(self, match: re.Match[str]) -> str:
        word = match[0]
        return self._table.get(word) or (word if word[0].isalpha() else word.translate(self._signs))

    def on_reset(self) -> None:
        self._goal = self.translate(self.text_env.goal)

    @property
    def goal(self) -> str:
        return self._goal

    def expert(self) -> ExpertAction | None:
        move = super().expert()
        return None if move is None else move._replace(thought=self.translate(move.thought))

    def render(self) -> str:
        return self.translate(str(self.env.render()))


def plural(word: str) -> str:
    """Return the regular plural of a noun in lower case."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    if word.endswith("f"):
        return f"{word[:-1]}ves"  # shelf
    return word + ("es" if word.endswith(("x", "s", "ch", "sh", "to")) else "s")


def _invented(words: Iterable[str], rng: Random) -> dict[str, str]:
    """Give each word one of two syllables that English does not have, beginning with a vowel where it does."""
    taken: set[str] = set()
    pairs = {}
    for word in words:
        while True:
            new = ("" if word[:1] in tuple("aeiou") else rng.choice("bdfgklmnprtvz")) + rng.choice("aeiou")
            new += rng.choice(("lk", "mb", "nd", "rv", "sk", "zz", "gr", "pl")) + rng.choice("aiou")
            new += rng.choice("lmnrtk")
            if new not in taken:
                break
        taken.add(new)
        pairs[word] = new
    return pairs


def _table(pairs: Mapping[str, str]) -> dict[str, str]:
    """Return the dictionary of all forms, both ways."""
    table: dict[str, str] = {}
    for pair in pairs.items():
        for word in pair:
            if not (len(word) > 1 and word.isascii() and word.isalpha() and word.islower()):
                raise UsageError(f"words to rename are two or more letters in lower case, not {word[:40]!r}")
        for old, new in (pair, tuple(map(plural, pair))):
            for form in (str, str.capitalize, str.upper):
                for one, other in ((form(old), form(new)), (form(new), form(old))):
                    if table.setdefault(one, other) != other:
                        raise UsageError(f"{one!r} is in two of the pairs to rename")
    return table
