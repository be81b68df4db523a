"""Domains of other people: entry points of their packages, and `module:factory` wherever a name is asked for."""

from __future__ import annotations

import sys

import pytest

import gentax
from command import run
from gentax.core import SPLITS, UsageError, split_of
from gentax.domains import domain
from gentax.domains.check import QUICK, Verdict
from gentax.domains.external import load_external
from gentax.domains.registry import domains, parse_domain
from gentax.policies import ExpertPolicy
from gentax.rollouts import rollout
from gentax.training import TrainConfig
from gentax.training.config import ForgettingConfig
from gentax.training.rollout_worker import task_pool

OWN = '''
import gymnasium
from gymnasium.spaces import Text
import gentax
from gentax.core import StepResult, Domain, Level, ExpertAction, TextEnv

RECORD = Domain(
    name="echo", entry="own_game:Echo", about="Say it back.", rules="Say back what you read.",
    levels={"short": Level(2, "one word"), "long": Level(9, "one word, more time")}, default_level="short",
    licence="MIT", origin="a test",
)


class Echo(TextEnv):
    domain = RECORD

    def _reset_task(self, task):
        self.word = f"w{task.index}"
        return "Say it.", self.word

    def _step(self, action):
        won = action == self.word
        return StepResult(self.word, float(won), won, won, won)

    def expert(self):
        return ExpertAction(self.word, "It is written there.")

    def size(self, split):
        return 50


def wrapped(**settings):
    return gentax.distract(Echo(**settings), volume=40)


def fixed():
    return Echo()


class Guess(gymnasium.Env):
    """Guess the parity of a number."""

    observation_space = action_space = Text(9)
    rules = "Say odd or even."

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number = int(self.np_random.integers(1000))
        return str(self.number), {"goal": "Say which.", "admissible": ["odd", "even"]}

    def step(self, action):
        right = action == ("odd" if self.number % 2 else "even")
        return "right" if right else "wrong", 5.0 * right, True, False, {"valid": action in ("odd", "even")}


class Named(Guess):
    def reset(self, *, seed=None, options=None):
        shown, info = super().reset(seed=seed)
        return shown, {**info, "content": self.number}


class OneTask(Named):
    def reset(self, *, seed=None, options=None):
        return "7", {"content": "always the same"}


class Pixels(gymnasium.Env):
    def reset(self, *, seed=None, options=None):
        return 7, {}

    def step(self, action):
        return 7, 0.0, True, False, {}


def broken():
    raise RuntimeError("no licence key")


CONSTANT = 3
'''


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.delitem(sys.modules, "own_game", raising=False)
    load_external.cache_clear()
    yield
    load_external.cache_clear()


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_game.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["own_game:RECORD", "own_game:Echo", "own_game:wrapped"])
def test_a_text_env_in_a_module_is_played_under_the_name_asked_for(own, name):
    env = gentax.make(name, "long", reward="dense", horizon=3)
    assert (env.domain.name, env.level, env.horizon) == (name, "long", 3)
    tasks = env.tasks("test", 5)
    assert all(gentax.Task.parse(task.id) == task and task.domain == name for task in tasks)
    episodes = rollout(ExpertPolicy(), tasks)
    assert all(episode.success and episode.rules == "Say back what you read." for episode in episodes)
    assert (len(episodes[0].steps[0].observation) > 20) == (name == "own_game:wrapped")
    env.close()


def test_any_gymnasium_text_environment_can_be_played_and_evaluated(own):
    name = "own_game:Guess"
    assert domain(name).about == "Guess the parity of a number."
    env = gentax.make(name)
    observation, info = env.reset(options={"index": 0, "split": "test"})
    assert observation.isdigit()
    assert info["goal"] == "Say which."
    assert env.admissible() == ["odd", "even"]
    assert env.step("odd" if int(observation) % 2 else "even")[1:4] == (1.0, True, False)
    assert env.reset(options={"index": 0, "split": "test"})[0] == observation
    env.reset(options={"index": 1})
    assert env.step("shout")[4] == {"valid": False, "success": False}
    result = gentax.evaluate("random", [name], tasks=60)
    assert 30 < result.success()[name].value < 70
    assert result.episodes[name][0].rules == "Say odd or even."


def test_the_reported_content_of_a_task_decides_its_split(own):
    env = gentax.make("own_game:Named")
    shown = {split: set() for split in SPLITS}
    for split, numbers in shown.items():
        for task in env.tasks(split, 60):
            observation, info = env.reset(options={"task": task})
            assert split_of(info["content"]) == split
            numbers.add(observation)
    assert len(set.union(*shown.values())) == sum(map(len, shown.values())) > 100
    (result,) = gentax.check("own_game:Named", effort=QUICK, only=["contents"]).results
    assert result.message.endswith("none is in two splits")


def test_without_reported_content_disjoint_splits_are_not_claimed(own):
    assert gentax.make("own_game:Guess").reset(options={"index": 0})[1]["content"] is None
    (result,) = gentax.check("own_game:Guess", effort=QUICK, only=["contents"]).results
    assert (result.verdict, "nobody can claim that its test tasks are new" in result.message) == (
        Verdict.NOT_APPLICABLE,
        True,
    )
    with pytest.raises(
        UsageError, match=r"forgetting.merge: interpolate chooses by validation tasks, and own_game:Guess does not"
    ):
        task_pool("own_game:Guess", TrainConfig(forgetting=ForgettingConfig(merge="interpolate")))
    assert len(task_pool("own_game:Guess", TrainConfig()).validation) == 64
    chosen = TrainConfig(forgetting=ForgettingConfig(merge="interpolate"))
    assert len(task_pool("own_game:Named", chosen).validation) == 64


def test_a_single_content_leaves_the_other_splits_empty(own):
    made = []
    for split in SPLITS:
        env = gentax.make("own_game:OneTask", split=split)
        try:
            made.append(env.reset(options={"index": 0})[1]["content"])
        except UsageError as error:
            assert "must differ from task to task" in str(error)  # noqa: PT017 (which split has it is a matter of its hash)
    assert len(made) == 1


def test_the_environment_s_own_reward_is_the_dense_reward(own):
    env = gentax.make("own_game:Guess", reward="dense")
    observation, _ = env.reset(options={"index": 0})
    assert env.step("odd" if int(observation) % 2 else "even")[1] == 5.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sokobn:6x6", "did you mean 'sokoban'"),
        ("own_game:Ecko", "did you mean 'Echo'"),
        ("own_game:CONSTANT", "a int, which makes no environment"),
        ("own_game:broken", "RuntimeError: no licence key"),
        ("own_game:OWN", "unknown domain in module own_game"),
        ("own_game:Domain", "cannot be made"),
    ],
)
def test_a_bad_module_or_factory_is_refused_in_one_line(own, name, said):
    with pytest.raises(UsageError, match=r"^[^\n]+$") as error:
        gentax.make(name)
    assert said in str(error.value)


def test_a_factory_without_settings_or_without_text_is_refused(own):
    with pytest.raises(UsageError, match="must take settings by name"):
        gentax.make("own_game:fixed")
    with pytest.raises(UsageError, match="unknown setting of own_game:Guess 'rewrad'; did you mean 'reward'"):
        gentax.make("own_game:Guess", rewrad="dense")
    env = gentax.make("own_game:Pixels")
    with pytest.raises(UsageError, match="shows a int and not text"):
        env.reset(options={"index": 0})


def test_no_name_of_a_setting_gets_past_the_check():
    with pytest.raises(UsageError, match="unknown setting of sokoban 'record'; did you mean 'reward'"):
        gentax.make("sokoban", record=1)


def test_domain_level_is_distinguished_from_module_factory(own):
    assert parse_domain("sokoban") == ("sokoban", None)
    assert parse_domain("sokoban:6x6") == ("sokoban", "6x6")
    assert parse_domain("own_game:Echo") == ("own_game:Echo", None)
    assert parse_domain("own_game:Echo:long") == ("own_game:Echo", "long")


def test_a_package_registers_a_domain_by_entry_point(own):
    about = own / "own_game-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-game\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[gentax.domains]\necho = own_game:RECORD\n")
    domains.cache_clear()
    try:
        env = gentax.make("echo", "long")
        assert (env.domain.name, env.horizon, env.tasks("test", 1)[0].id) == ("echo", 9, "echo/long/test/0")
        assert gentax.evaluate("expert", ["echo"], tasks=5).success()["echo"].value == 100.0
    finally:
        domains.cache_clear()


def test_the_command_line_finds_a_module_in_the_working_directory(tmp_path):
    (tmp_path / "own_game.py").write_text(OWN)
    done = run("evaluate", "expert", "-d", "own_game:Echo:long", "--tasks", "4", cwd=tmp_path)
    assert "100.0" in done.out, done.err
