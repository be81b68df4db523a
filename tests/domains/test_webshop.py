"""WebShop: tasks, expert, pages, search, the published score, strange actions, and the official data."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from playing import play_expert

import gentax
from gentax.core import SPLITS, Task, UsageError
from gentax.domains.webshop import LEVELS, parse_level
from gentax.domains.webshop.env import PER_PAGE, WebShop
from gentax.domains.webshop.goals import (
    alike,
    content_of,
    price_limit,
    sample_goal,
    score,
    splits_of,
    type_score,
)
from gentax.domains.webshop.shop import DEPARTMENTS, K1, B, Goal, Index, Product, generated


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv("GENTAX_WEBSHOP", raising=False)


def started(level: str = "1k-easy", index: int = 0, **settings) -> WebShop:
    env = WebShop(level, **settings)
    env.reset(options={"index": index, "split": "test"})
    return env


# Tasks.


@pytest.mark.slow
def test_splits_share_no_product_and_no_request_even_at_another_price():
    asked = {split: set() for split in SPLITS}
    products = {split: set() for split in SPLITS}
    catalogue, spec = generated(1000, False), parse_level("1k-easy")
    for split, wishes in asked.items():
        for index in range(2000):
            goal = sample_goal(catalogue, spec, split, Task("webshop", "1k-easy", split, index).seed, PER_PAGE[False])
            assert splits_of(goal) == {split}
            wishes.add((goal.product.query, frozenset(goal.attributes), frozenset(goal.options)))
            products[split].add(content_of(goal.product))
    for found in (asked, products):
        assert len(set.union(*found.values())) == sum(map(len, found.values()))
    assert len(asked["train"]) > 500


@pytest.mark.parametrize(
    ("level", "count"), [("4k-easy", 200), ("4k-medium", 40), ("10k-hard", 20), ("2k-hard-long", 20)]
)
def test_expert_wins_test_tasks(level, count):
    env = WebShop(level, split="test")
    for index in range(count):
        moves, rewards, success = play_expert(env, index)
        assert success
        assert sum(rewards) == 1.0
        assert all(0 < len(move.thought.split()) <= 14 for move in moves)
        assert env.steps <= 10 < env.horizon
        assert env.expert() is None


def test_expert_recovers_from_random_play():
    env, rng = WebShop("1k-medium", horizon=60), random.Random(0)
    won = 0
    for index in range(40):
        env.reset(options={"index": index})
        for _ in range(6):
            env.step(rng.choice([action for action in env.admissible() if action != "click[buy now]"]))
        over = False
        while not over and (move := env.expert()) is not None:
            *_, over, truncated, info = env.step(move.action)
            assert info["valid"]
            over = over or truncated
        won += info["success"]
    assert won >= 38


def test_the_first_result_is_often_wrong():
    """Otherwise nothing on the page would have to be read."""
    env, won = WebShop("4k-easy"), 0
    for index in range(100):
        env.reset(options={"index": index})
        env.step(env.expert().action)
        env.step(f"click[{env.session.shown()[0].code}]")
        for value in env.wanted.options:
            env.step(f"click[{value}]")
        won += env.step("click[buy now]")[4]["success"]
    assert 30 < won < 70


# The shop.


def test_the_text_of_pages():
    env = WebShop("1k-easy", split="validation", horizon=40)
    env.reset(options={"index": 216})
    assert (env.goal, env.observation) == (GOAL, "Search page.")
    assert env.step("click[b024]")[0] == "No such button here. Search page."
    observation = env.step("Search[ Waterproof  LOAFERS 9 ]")[0]
    assert observation == RESULTS
    assert env.step("search[loafers]")[0] == f"Search from the search page. {RESULTS}"
    item = "b024 waterproof breathable loafers $6. color: red, blue, black, white, brown. size: 6, 9, 10, 11."
    assert env.step("click[B024]")[0] == item
    assert env.step("click[9]")[0] == f"{item} Chosen: 9."
    assert env.step("click[11]")[0] == f"{item} Chosen: 11."
    assert env.step("click[features]")[0].startswith("Features of b024: waterproof, breathable, vegan, flat.")
    assert env.step("click[buy now]")[4]["valid"] is False
    assert env.step("click[< prev]")[0] == f"{item} Chosen: 11."
    assert env.step("click[description]")[0].startswith("Description of b024: For ")
    env.step("click[< prev]")
    assert env.step("click[reviews]")[0].startswith("Reviews of b024: ")
    env.step("click[< prev]")
    assert env.step("click[< prev]")[0] == RESULTS
    assert env.step("click[next >]")[0].startswith("Results, page 2 of 13:")
    assert env.step("click[< prev]")[0] == RESULTS
    assert env.step("click[< prev]")[4]["valid"] is False
    assert env.step("click[back to search]")[0] == "Search page."
    assert env.step("search[zzz]")[0] == "No results."


GOAL = "Buy waterproof loafers, color white, under 30 dollars."
RESULTS = """\
Results, page 1 of 13:
b024 waterproof breathable loafers $6
b748 wide waterproof loafers $31
b322 laced orthopedic loafers $68
b298 suede flat loafers $1"""


def test_buying_ends_the_episode_with_the_published_score():
    for reward, expected in (("sparse", 0.0), ("dense", 2 / 3)):
        env = WebShop("1k-easy", split="validation", reward=reward)
        env.reset(options={"index": 216})
        env.step("search[waterproof loafers 9]")
        env.step("click[b024]")
        observation, got, terminated, _, info = env.step("click[buy now]")
        assert (observation, terminated, info["success"]) == ("Bought b024. Score 0.67.", True, False)
        assert got == pytest.approx(expected)


def test_long_pages_are_laid_out_as_published():
    env = started("1k-hard-long")
    assert env.observation == "Search"
    parts = env.step("search[coat]")[0].split(" [SEP] ")
    assert parts[:3] == ["Back To Search", "Page 1 (Total results: 17)", "Next >"]
    assert len(parts) == 3 + 3 * 10
    item = env.step(f"click[{parts[3]}]")[0]
    assert item.startswith("Back To Search [SEP] < Prev [SEP] color [SEP] ")
    assert item.endswith(" [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now")
    assert len(env.step("click[features]")[0]) > 200


@pytest.mark.parametrize(
    "action", ["", " ", "\0", "🛒", "buy", "search", "search[", "click", "clickx[a]", "\ud800[", "[]"]
)
def test_any_string_is_accepted_as_an_action(action):
    env = started()
    observation, reward, terminated, _, info = env.step(action)
    assert observation == "Unknown action. Search page."
    assert (reward, terminated, info) == (0.0, False, {"valid": False, "success": False})


def test_exactly_the_admissible_actions_are_valid():
    env, rng = WebShop("1k-medium", horizon=1000), random.Random(0)
    known = {"click[9]"}
    for index in range(20):
        env.reset(options={"index": index})
        for _ in range(40):
            offered = env.admissible()
            known.update(offered)
            action = rng.choice(offered if rng.random() < 0.5 else sorted(known))
            session = env.session
            before = (session.page, session.hits, session.page_index, session.product, dict(session.chosen))
            *_, terminated, _, info = env.step(action)
            # Any words can be searched for, from the search page.
            assert info["valid"] == (action in offered or (action.startswith("search") and before[0] == "search"))
            after = (session.page, session.hits, session.page_index, session.product, dict(session.chosen))
            assert info["valid"] or after == before
            if terminated:
                break


def test_product_texts_mention_exactly_their_attributes():
    for long in (False, True):
        catalogue = generated(2000, long)
        assert len(catalogue.by_code) == len(catalogue.products) == 2000
        attributes = {department.name: set(department.attributes) for department in DEPARTMENTS}
        for product in catalogue.products:
            said = f"{product.title} {' '.join(product.features)} {product.description}".lower()
            for asked in attributes[product.category[0]]:
                assert (asked in said) == (asked in product.attributes), (asked, said)
            assert product.query in product.title.lower().replace(",", "").split()
            assert product.price % 10


def test_no_two_values_of_an_option_and_no_two_attributes_are_alike():
    for department in DEPARTMENTS:
        for values in (department.attributes, *department.options.values()):
            assert not [(a, b) for a in values for b in values if a < b and alike(a, b)]
    kinds = [kind for department in DEPARTMENTS for kind in department.aisles]
    assert len(set(kinds)) == len(kinds) > 50


def test_search_is_bm25():
    texts = ["red shoes", "red red hat for a cold day", "blue shoe shoes", "green glass"]
    index = Index(texts)
    lengths = np.array([2, 7, 3, 2])
    norm = K1 * (1 - B + B * lengths / lengths.mean())
    shoe = np.array([1, 0, 2, 0])
    expected = np.log(1 + (4 - 2 + 0.5) / (2 + 0.5)) * shoe / (shoe + norm)
    assert list(index.search("shoe")) == [2, 0] == np.argsort(-expected)[:2].tolist()
    assert index.search("SHOES!") == index.search("shoe")
    assert index.search("red hat") == (1, 0)
    assert index.search("nothing") == index.search("") == ()
    assert len(Index(["hat"] * 80).search("hat")) == 50
    assert Index(["hat"] * 80).search("hat") == tuple(range(50))


# The score.

SHIRT = Product(
    code="b1",
    title="soft cotton shirt",
    query="shirt",
    nouns=frozenset({"shirt"}),
    category=("clothing", "tops", "shirt"),
    price=30.0,
    tag="$30",
    attributes=("soft", "cotton"),
    options={"color": ("red", "blue"), "size": ("s", "m")},
    description="For work. Machine washable.",
    features=("soft", "cotton"),
)
WISH = Goal("", SHIRT, ("cotton", "soft"), ("red", "m"), 40.0)


@pytest.mark.parametrize(
    ("product", "chosen", "met"),
    [
        ({}, {"color": "red", "size": "m"}, 5),
        ({}, {"color": "red"}, 4),
        ({}, {"color": "blue", "size": "s"}, 3),
        ({"price": 40.5}, {"color": "red", "size": "m"}, 4),
        ({"price": 40.0}, {"color": "red", "size": "m"}, 5),
        ({}, {"color": "dark red", "size": "m"}, 5),  # a colour by its plain name
        ({}, {"color": "reds", "size": "m"}, 5),  # nearly the same letters, 6/7
        ({"attributes": ("organic cotton",)}, {"color": "red", "size": "m"}, 5),  # soft is in the title
        ({"attributes": ("cottons",), "title": "shirt", "features": ()}, {"color": "red", "size": "m"}, 4),
    ],
)
def test_score_counts_attributes_options_and_price(product, chosen, met):
    assert score(replace(SHIRT, **product), WISH, chosen) == pytest.approx(met / 5)


@pytest.mark.parametrize(
    ("shared", "query", "category", "expected"),
    [
        (1, "shirt", ("toys",), 1.0),  # the query
        (1, "hat", ("clothing", "tops", "hat"), 1.0),  # two steps of the category
        (1, "hat", ("clothing", "caps", "hat"), 0.5),  # one in five words of the title
        (2, "hat", ("toys",), 1.0),
        (0, "shirt", ("clothing", "tops", "shirt"), 0.0),
    ],
)
def test_type_score_is_the_published_one(shared, query, category, expected):
    wanted = replace(SHIRT, nouns=frozenset("abcde"))
    product = replace(SHIRT, nouns=frozenset("abcde"[:shared]), query=query, category=category)
    assert type_score(product, wanted) == expected


def test_a_price_limit_is_one_of_the_next_four_tens():
    rng = random.Random(0)
    assert {price_limit(33.0, rng.random) for _ in range(200)} == {50.0, 60.0, 70.0}
    assert price_limit(985.0, rng.random) > 10_000


# Levels and data.


@pytest.mark.slow
def test_harder_levels_ask_for_more_attributes_and_options():
    for name, level in LEVELS.items():
        assert level.horizon == 15
        spec = parse_level(name)
        if spec.size <= 10_000:
            env = started(name)
            assert (len(env.wanted.attributes), len(env.wanted.options)) == (spec.attributes, spec.options)
            assert all(word in env.goal for word in (*env.wanted.attributes, *env.wanted.options))
    assert parse_level("20k-medium-long").size == 20_000


@pytest.mark.parametrize(
    ("level", "says"),
    [
        ("4k-esy", "did you mean '4k-easy'"),
        ("0k-easy", "1k to 100k"),
        ("500k-easy", "1k to 100k"),
        ("", "Nk-easy"),
        ("official", "data=FOLDER or GENTAX_WEBSHOP=FOLDER"),
    ],
)
def test_bad_levels_are_refused_with_a_suggestion(level, says):
    with pytest.raises(UsageError, match=says):
        WebShop(level)


@pytest.fixture
def data(tmp_path):
    """Six made-up products in the form of the official files."""
    items, asked, known = [], {}, {}
    for number, noun in enumerate(("chair", "lamp", "shelf", "stool", "sofa", "desk", "rug", "vase", "bench", "tray")):
        code = f"B00000000{number}"
        items.append(
            {
                "asin": code,
                "name": f"Acme  {noun.title()} with Legs",
                "query": noun,
                "category": "garden",
                "product_category": f"Home › Furniture › {noun}",
                "pricing": "$12.50 to $20.00" if number else "",
                "full_description": None,
                "small_description": ["Easy to clean.", None],
                "customization_options": {"Color": [{"value": "Dark Red"}, {"value": "blue/green"}], "fit": None},
            }
        )
        known[code] = {"attributes": ["easy clean"]}
        one = {
            "instruction": f"i want a {noun} in red.",
            "instruction_attributes": ["easy clean"],
            "instruction_options": ["dark red"],
        }
        asked[code] = [one, {**one, "instruction_attributes": []}]
    for name, content in (("items_shuffle_1000", items), ("items_ins_v2_1000", known), ("items_human_ins", asked)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return tmp_path


def test_official_data_are_played(data, monkeypatch):
    monkeypatch.setattr("gentax.domains.webshop.goals.CHUNK", 100)  # so that products straddle chunks
    env = gentax.make("webshop", data=str(data), split="test")
    assert env.level.startswith("official-")
    products = {split: {goal.product.code for goal in goals} for split, goals in env._official.goals.items()}
    assert len(set.union(*products.values())) == sum(map(len, products.values())) == 10
    for index in range(env.size("test")):
        env.reset(options={"index": index})
        assert env.goal.startswith("i want a ")
        over = False
        while not over:
            *_, over, truncated, info = env.step(env.expert().action)
            assert not truncated
        assert info["success"]
    product = env.session.product
    assert product.title.startswith("Acme ")
    assert product.options == {"color": ("dark red", "blue | green")}

    monkeypatch.setenv("GENTAX_WEBSHOP", str(data))
    assert WebShop().level == WebShop("official").level == WebShop(env.level).level == env.level
    assert WebShop("1k-easy").level == "1k-easy"
    with pytest.raises(UsageError, match="other data"):
        WebShop("official-00000000")
    with pytest.raises(UsageError, match="leave data or level out"):
        WebShop("1k-easy", data=data)


def test_an_official_test_instruction_never_occurs_in_training(data):
    file = data / "items_human_ins.json"
    asked, sizes = json.loads(file.read_text()), {split: WebShop(data=data).size(split) for split in SPLITS}
    for code, goal in ((one.product.code, one) for one in WebShop(data=data)._official.goals["train"]):
        asked[code][0]["instruction"] = "I want something red"
        file.write_text(json.dumps(asked))
        assert goal.product.code == code
    assert {split: WebShop(data=data).size(split) for split in SPLITS} == sizes  # no other split asks for it
    later = WebShop(data=data)._official.goals["test"][0].product.code
    asked[later][0]["instruction"] = "I want something red"
    file.write_text(json.dumps(asked))
    if sizes["test"] == 1:
        with pytest.raises(UsageError, match="no test instruction"):
            WebShop(data=data)
    else:
        assert WebShop(data=data).size("test") == sizes["test"] - 1


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("items_shuffle_1000.json", None, r"no items_shuffle\*\.json"),
        ("items_ins_v2_1000.json", None, "items_ins_v2_1000.json is missing"),
        ("items_human_ins.json", None, "items_human_ins.json: No such file"),
        ("items_shuffle_1000.json", '[{"asin": "B1"', "cannot be read as JSON"),
        ("items_shuffle_1000.json", "{}", "not a list"),
        ("items_shuffle_1000.json", '[{"asin": "B1"}]', "product 0 .* not as published"),
        ("items_shuffle_1000.json", "[3]", "product 0 .* not as published"),
        ("items_human_ins.json", "[1]", "not an object"),
        ("items_human_ins.json", "{}", "no train instruction"),
        ("items_human_ins.json", '{"B000000001": [{}]}', "'B000000001' is not as published"),
        ("items_ins_v2_1000.json", "\x00", "cannot be read as JSON"),
    ],
)
def test_broken_data_files_are_named_in_one_line(data, file, content, says):
    (data / file).unlink() if content is None else (data / file).write_text(content)
    with pytest.raises(UsageError, match=says) as error:
        WebShop(data=data)
    assert "\n" not in str(error.value)
