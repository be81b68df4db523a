"""Diversity by hand, absolute, with intervals that match a jackknife done the long way."""

import json
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import TfidfVectorizer

from gentax.core import Episode, Outcome, Step, Task, UsageError
from gentax.metrics.axes import Probe, axes
from gentax.metrics.diversity import MEASURES, counts, diversity, rao, tfidf, unseen, unshared, vendi
from gentax.metrics.statistics import Estimate

WORDS = ("red", "blue", "gold", "box", "key", "door", "wall", "you", "see", "go")


def episodes(name: str, *tasks: list[str], won: bool = True) -> list[Episode]:
    outcome = Outcome.SUCCESS if won else Outcome.FAILURE
    steps = [tuple(Step(text, "go", "go", 0.0, True) for text in texts) for texts in tasks]
    return [Episode(Task(name, "base", "train", n), 0, "", of_task, outcome) for n, of_task in enumerate(steps)]


def probed(name: str, *tasks: list[str], won: bool = True, horizon: int = 10) -> Probe:
    played = episodes(name, *tasks, won=won)
    found = axes(name, played, horizon)
    return Probe(name, "base", (), "made up", "none", 0, found, name, episodes=tuple(played))


def measured(measure, a: list[list[str]], b: list[list[str]]) -> Estimate:
    found = counts({"a": episodes("a", *a), "b": episodes("b", *b)})
    return measure(found["a"], found["b"])


def random_tasks(rng: np.random.Generator, words: tuple[str, ...], count: int) -> list[list[str]]:
    return [[" ".join(rng.choice(words, 4)) for _ in range(3)] for _ in range(count)]


def test_words_and_pairs_by_hand():
    # red, box, red box / red, key, red key, box, ".", key "." and so on: no pair runs over the end of an observation.
    a, b = [["Red box"], ["red", "box"]], [["red key."], ["red"]]
    # a: red, box, red box. b: red, key, ".", red key, key "."
    assert measured(unshared, a, b).value == pytest.approx(1 - 1 / 7)
    assert measured(unseen, a, b).value == pytest.approx(1 - 1 / 5)
    assert measured(unseen, b, a).value == pytest.approx(1 - 1 / 3)


@pytest.mark.parametrize("measure", [unshared, unseen, tfidf])
def test_alike_is_0_and_nothing_shared_is_1(measure):
    a, b = [["red box"], ["blue box"]], [["go north"], ["go south"]]
    assert measured(measure, a, a).value == pytest.approx(0)
    assert measured(measure, a, b).value == pytest.approx(1)


def test_tfidf_is_the_cosine_of_the_mean_vectors_of_scikit_learn():
    rng = np.random.default_rng(0)
    a, b = ([list(rng.choice(words, 5, replace=False)) for _ in range(5)] for words in (WORDS[:7], WORDS[3:]))
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform([" ".join(task) for task in (*a, *b)]).toarray()

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one.mean(0), other.mean(0)
        return 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)

    without = [
        [apart(np.delete(vectors[:5], i, 0), vectors[5:]) for i in range(5)],
        [apart(vectors[:5], np.delete(vectors[5:], i, 0)) for i in range(5)],
    ]
    distance = measured(tfidf, a, b)  # observations of one word have no pairs
    assert distance.value == pytest.approx(apart(vectors[:5], vectors[5:]))
    half = 2.7764451 * np.sqrt(sum((len(v) - 1) * np.var(v) for v in without))  # Student's t, 4 degrees
    assert distance.high == pytest.approx(min(1, distance.value + half))


@pytest.mark.parametrize("measure", [unshared, unseen])
def test_the_interval_is_the_jackknife_over_tasks(measure):
    a, b = random_tasks(np.random.default_rng(2), WORDS[:7], 6), random_tasks(np.random.default_rng(3), WORDS[3:], 5)
    without = [
        [measured(measure, a[:i] + a[i + 1 :], b).value for i in range(len(a))],
        [measured(measure, a, b[:i] + b[i + 1 :]).value for i in range(len(b))],
    ]
    variance = sum((len(v) - 1) * np.var(v) for v in without)
    found = measured(measure, a, b)
    assert found.high - found.value == pytest.approx(2.7764451 * np.sqrt(variance))  # Student's t, 4 degrees
    assert found.n == 11


@pytest.mark.parametrize("measure", [unshared, unseen])
def test_long_texts_take_little_memory(measure):
    once = csr_array(np.eye(64, 200_000))
    tracemalloc.start()
    measure(once, once)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6  # a byte for each of 64 tasks and 200,000 n-grams is 12.8 MB


def test_a_policy_that_stands_still_makes_no_word_common():
    a = [["red box", "blue key"], ["gold box"]]
    stuck = [["red box", *["blue key"] * 40], ["gold box"]]
    b = [["blue key"], ["go"]]
    assert measured(tfidf, a, b) == measured(tfidf, stuck, b)


def test_where_domains_lie_by_hand():
    near = probed("near", ["x" * 20] * 2, ["x" * 20] * 2)
    wide = probed("wide", ["x" * 2000] * 2, ["x" * 2000] * 2)
    far = probed("far", ["x" * 20] * 7, ["x" * 20] * 7)
    both = probed("both", ["x" * 200] * 6, ["x" * 200] * 6)
    found = diversity([near, wide, far, both]).pairs["structural"]["near"]
    assert {name: e.value for name, e in found.items()} == pytest.approx(
        {"wide": 2, "far": 0.5, "both": np.hypot(1, 0.4)}
    )
    assert found["far"].low < 0.5 < found["far"].high


def test_it_says_the_same_of_two_domains_whoever_stands_beside_them():
    rng = np.random.default_rng(4)
    shown = {"a": WORDS[:6], "b": WORDS[2:8], "c": WORDS}
    a, b, c = (probed(name, *random_tasks(rng, words, 4)) for name, words in shown.items())
    two, three = diversity([a, b]), diversity([a, c, b])
    assert set(two.pairs) == set(MEASURES)
    for measure in MEASURES:
        assert two.pairs[measure]["a"]["b"].value == pytest.approx(three.pairs[measure]["a"]["b"].value)
        assert three.matrix(measure).diagonal().tolist() == [0, 0, 0]
    assert (three.matrix("tfidf") == three.matrix("tfidf").T).all()
    assert not (three.matrix("unseen") == three.matrix("unseen").T).all()


def test_a_probe_without_episodes_is_compared_on_the_axes_alone():
    a, b = probed("a", ["red box"], ["go"]), probed("b", ["a key"], ["a wall is here"])
    read = Probe.from_json(json.loads(json.dumps(a.to_json())))
    found = diversity([read, b])
    assert list(found.pairs) == ["structural"]
    assert found.pairs["structural"]["a"]["b"].value == pytest.approx(
        diversity([a, b]).pairs["structural"]["a"]["b"].value
    )
    assert "vendi" not in found.mixture()


def test_a_mixture_by_hand():
    distance = np.array([[0, 0.5], [0.5, 0]])
    assert rao(distance, np.array([1, 1])) == pytest.approx(0.25)
    assert rao(distance, np.array([3, 1])) == pytest.approx(2 * 0.75 * 0.25 * 0.5)
    for similarity, effective in ((np.eye(4), 4), (np.ones((4, 4)), 1)):
        assert vendi(similarity, np.ones(4)) == pytest.approx(effective)
    assert vendi(np.eye(3), np.array([1, 1, 0])) == pytest.approx(2)
    # Two of three alike: eigenvalues 2/3 and 1/3.
    pair = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    assert vendi(pair, np.ones(3)) == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))))
    found = diversity([probed("a", ["red box"], ["go"]), probed("b", ["a key"], ["a wall"])])
    mixed = found.mixture({"b": 2.0, "a": 6.0})
    assert mixed["rao"]["unshared"] == pytest.approx(2 * 0.75 * 0.25)
    assert found.mixture()["vendi"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("weights", "says"),
    [({"c": 1.0}, "unknown domain"), ({"a": -1.0, "b": 2.0}, "at least 0"), ({"a": 0.0}, "one of them more")],
)
def test_what_is_no_mixture_is_refused(weights, says):
    found = diversity([probed("a", ["red box"], ["go"]), probed("b", ["a key"], ["a wall"])])
    with pytest.raises(UsageError, match=says):
        found.mixture(weights)


def test_what_cannot_be_compared_is_refused():
    a, b = probed("a", ["red box"], ["go"]), probed("b", ["a key"], ["a wall"])
    far, mute = probed("far", ["x"], ["y"], horizon=20), probed("mute", [" "], ["\n"])
    for probes, says in (
        ([a], "2 or more"),
        ([a, a], "2 or more different"),
        ([a, far], "horizons 10 and 20"),
        ([a, mute], "observations of mute hold none"),
    ):
        with pytest.raises(UsageError, match=says):
            diversity(probes)
    with pytest.raises(UsageError, match="unknown measure"):
        diversity([a, b]).matrix("realism")
