"""Shared by all tests: a tiny model with the shipped tokenizer's kind, and a toy domain that needs no Java."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models of tests are too small for more
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import dataclasses
import gc
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from gentax.core import Domain, EnvironmentFault, ExpertAction, Level, StepResult, Task, TextEnv, content_hash
from gentax.domains import registry
from gentax.domains.java import Jvm

# What a shell starts in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOY = Domain(
    name="toy",
    entry="conftest:Toy",
    about="Say the word that is shown.",
    rules="Say the word you see.",
    levels={"one": Level(1, "one word"), "three": Level(6, "three words")},
    default_level="three",
    licence="Apache-2.0",
    origin="the tests",
)
WORDS = ("red", "green", "blue", "gold")


class Toy(TextEnv):
    """Shows a word; saying it three times in all (once at level `one`) solves the task. "crash" breaks it."""

    domain = TOY
    crashes = 0  # how often any of them has been broken
    fatal = False  # whether a broken one also breaks when its episode is played again

    def _reset_task(self, task: Task) -> tuple[str, str]:
        self.left = 1 if self.level == "one" else 3
        self.word = WORDS[task.seed % 4]
        return "Repeat what you see.", f"The word is {self.word}."

    def _step(self, action: str) -> StepResult:
        if action == "crash" and (Toy.fatal or Toy.crashes == 0):
            Toy.crashes += 1
            raise EnvironmentFault("the toy broke")
        if action != self.word:
            return StepResult(f"No. The word is {self.word}.", 0.0, False, False, False)
        self.left -= 1
        self.word = WORDS[(WORDS.index(self.word) + 1) % 4]
        return StepResult(f"Yes. The word is {self.word}.", float(self.left == 0), self.left == 0, self.left == 0, True)

    def admissible(self) -> list[str]:
        return [self.word]

    def expert(self) -> ExpertAction:
        return ExpertAction(self.word, f"It says {self.word}.")

    def content(self) -> str:
        return content_hash(self.task.id)  # every task says another thing

    def size(self, split: str) -> int:
        return 1000


JAVA = frozenset({"sciworld", "twx-cooking", "twx-mapreader"})
DOMAIN_MARKS = {name: [pytest.mark.jvm] for name in JAVA} | {"alfworld": [pytest.mark.slow]}
MARKED = ("slow", "jvm")  # what `make test-fast` leaves out


def by_domain(names: Iterable[str]) -> list[ParameterSet]:
    """Domains as parameters of a test, those that run on Java or take long marked so."""
    return [pytest.param(name, marks=DOMAIN_MARKS.get(name, [])) for name in names]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file whose tests are all left out: what it imports may take seconds."""
    left_out = [f"\npytestmark = pytest.mark.{mark}\n" for mark in MARKED if f"not {mark}" in config.option.markexpr]
    if collection_path.suffix != ".py" or not left_out:
        return None
    text = collection_path.read_text(encoding="utf-8")
    return True if any(line in text for line in left_out) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "able" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)  # the model is trained first


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Let the collector pass over what was imported by now: it stays, and is nearly everything."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def java_needs_its_mark(request, monkeypatch):
    """Fail a test that starts Java and is not marked `jvm`: `make test-fast` would run it."""

    def refuse(*_: object) -> None:
        pytest.fail("this test starts Java: mark it with pytest.mark.jvm")

    if request.node.get_closest_marker("jvm") is None:
        monkeypatch.setattr(Jvm, "_start", refuse)


@pytest.fixture
def toy(monkeypatch):
    """Register the toy domain for one test."""
    known = dict(registry.domains())
    known["toy"] = dataclasses.replace(TOY)
    monkeypatch.setattr(registry, "domains", lambda: known)
    monkeypatch.setattr("gentax.training.rollout_worker.VALIDATION_TASKS", 4)  # runs on the toy are short
    monkeypatch.setattr(Toy, "crashes", 0)
    monkeypatch.setattr(Toy, "fatal", False)
    return Toy


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A model folder with a few thousand parameters and a tokenizer of its own."""
    from gentax.training.pretrain import new_model, train_tokenizer
    from gentax.training.run_folder import save_model

    tokenizer = train_tokenizer(iter(["The word is red. green blue gold No. Yes. Say the word you see."] * 20), 300)
    import torch

    torch.manual_seed(0)
    model = new_model("nano", tokenizer)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def able(tiny, tmp_path_factory) -> Path:
    """The tiny model after a little imitation: it answers in the grammar of replies, and is right now and then."""
    from gentax.training import TrainConfig, train
    from gentax.training.config import SFTConfig

    with pytest.MonkeyPatch.context() as patch:
        known = {**registry.domains(), "toy": TOY}
        patch.setattr(registry, "domains", lambda: known)
        imitate = SFTConfig(
            mixture={"toy:one": 1.0, "toy:three": 1.0}, max_pairs=400, num_train_epochs=6.0, learning_rate=3e-3
        )
        return train(TrainConfig(model=str(tiny), max_steps=0, sft=imitate), tmp_path_factory.mktemp("models") / "able")
