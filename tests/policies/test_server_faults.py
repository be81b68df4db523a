"""What a server does wrong, or what it costs, falls on nobody else: errors, limits, the budget and the cache."""

from __future__ import annotations

import itertools
import json
import re
import time

import pytest

from chat_server import ChatServer, completion, listed
from command import run
from gentax.core import Outcome, PolicyFault, Task, UsageError
from gentax.domains import domain
from gentax.models.options import ModelOptions
from gentax.policies import load_policy, load_policy_pair
from gentax.policies.chat_client import ChatClient
from gentax.policies.endpoint import FAILURES_IN_A_ROW, EndpointPolicy
from gentax.rollouts import RolloutConfig, rollout

CONFIG = RolloutConfig(horizon=2, admissible=True)
NOOP = "<action>noop</action>"
SOON = {"retry-after": "0.001"}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("gentax.policies.chat_client.RETRY_PAUSES_S", (0.001,))
    monkeypatch.setattr("gentax.policies.chat_client.BACKOFF_S", 0.001)


def play(server, count=6, options=ModelOptions(), chat=True, parallel=None, **settings):
    """Play `count` tasks through a server; return the policy and the episodes."""
    tasks = [Task("crafting", domain("crafting").default_level, "test", i) for i in range(count)]
    client = ChatClient(server.url, options, chat=chat, **{"retries": 1, **settings})
    policy = EndpointPolicy(client, "toy")
    return policy, rollout(policy, tasks, config=CONFIG, seed=3, parallel=parallel)


def spoiled(response):
    """Answer the second conversation to begin, told by its first message, with `response`, and all others well."""
    seen = []

    def answer(request):
        start = request["messages"][0]["content"]
        if start not in seen:
            seen.append(start)
        return response() if seen.index(start) == 1 else listed(request)

    return answer


def drip():
    """A byte at a time, for longer than anybody waits."""
    yield from itertools.chain.from_iterable((b" ", time.sleep(0.05) or b" ") for _ in range(200))


def flood():
    for _ in range(64):
        yield b" " * (1 << 20)


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (lambda: {"choices": []}, "answers without a choice"),
        (lambda: {"choices": ["left"]}, "a choice that holds no message"),
        (lambda: {"choices": [{"message": None}]}, "a choice that holds no message"),
        (lambda: {"choices": [{"error": {"message": "upstream\ndied"}, "message": {"content": ""}}]}, "upstream died"),
        (lambda: completion("", "content_filter"), "finish_reason is content_filter"),
        (lambda: completion("half a", "error"), "finish_reason is error"),
        (lambda: (400, {"error": {"message": "flagged as unsafe"}}, {}), r"HTTP 400\): flagged as unsafe"),
        (lambda: (500, {"error": {"message": "oops"}}, SOON), r"HTTP 500\): oops"),
        (lambda: (200, b"{", {}), "answers what is no completion"),
        (lambda: (200, drip(), {}), "did not answer in time"),
        (lambda: (500, drip(), {}), "did not answer in time"),
        (lambda: (200, flood(), {}), "answers with more than 8 MB"),
        (lambda: (500, flood(), {}), "answers with more than 8 MB"),
        (lambda: (200, b"{}", {"content-encoding": "br"}), "an encoding that was not asked for"),
        (lambda: (307, b"", {"location": "http://127.0.0.1:9/v1"}), "redirects to http://127.0.0.1:9/v1, which is not"),
    ],
)
def test_a_request_that_fails_costs_its_own_episode_alone(response, says):
    with ChatServer(spoiled(response)) as server:
        _, episodes = play(server, timeout_s=0.5 if says.endswith("in time") else 20.0)
    (failed,) = (episode for episode in episodes if episode.outcome is Outcome.ERROR)
    assert len(failed.error.splitlines()) == 1
    assert re.search(says, failed.error)
    assert len(server.requests) < 40  # retries have an end


def test_a_first_prompt_that_is_refused_is_no_word_on_the_others():
    refused = 400, {"error": {"message": "flagged"}}, {}
    with ChatServer(lambda request: refused if len(server.requests) == 1 else NOOP) as server:
        _, episodes = play(server)
    assert [episode.error != "" for episode in episodes] == [True] + 5 * [False]


def test_a_server_that_fails_on_and_on_ends_the_run():
    down = 500, {"error": {"message": "out of memory"}}, SOON

    with ChatServer(lambda _: NOOP if len(server.requests) == 1 else down) as server:
        with pytest.raises(PolicyFault, match=rf"out of memory \({FAILURES_IN_A_ROW} requests in a row failed\)"):
            play(server, FAILURES_IN_A_ROW + 8)
        assert len(server.requests) < 100
    gone = 401, {"error": {"message": "revoked"}}, {}
    once = ChatServer(lambda _: NOOP if len(once.requests) == 1 else gone)
    with once as server, pytest.raises(PolicyFault, match="HTTP 401"):
        play(server)


def test_a_prompt_is_not_sent_where_a_server_redirects_to():
    with ChatServer(listed) as other:
        there = 307, b"", {"location": f"{other.url}/chat/completions"}
        with ChatServer(lambda _: there) as server, pytest.raises(PolicyFault, match="give that address"):
            play(server)
    assert not other.requests


def test_tokens_and_cost_are_counted():
    with ChatServer(lambda _: NOOP) as server:
        policy, _ = play(server, 3, ModelOptions(input_price=2e6, output_price=0.5e6))
    usage = policy.usage
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens, usage.cost) == (6, 6, 6, 15.0)
    assert str(usage) == "6 requests: 6 tokens in, 6 out, $15"


def test_a_spend_limit_leaves_the_rest_as_errors_and_a_later_run_plays_only_those(tmp_path):
    prices = {"input_price": 1e6, "output_price": 1e6, "cache": str(tmp_path / "cache")}
    with ChatServer(listed) as server:
        policy, episodes = play(server, options=ModelOptions(spend_limit=10, **prices), parallel=1)
        errors = [episode.error for episode in episodes if episode.outcome is Outcome.ERROR]
        first = len(server.requests)
        assert 0 < len(errors) < 6
        assert set(errors) == {"not asked: the spend limit of $10 is reached"}
        assert policy.usage.cost == policy.server.budget.spent >= 10
        later, whole = play(server, options=ModelOptions(**prices), parallel=1)
        assert later.usage.cached == first
        assert len(server.requests) == sum(episode.length for episode in whole)
    assert [e for e in episodes if not e.error] == [
        e for e in whole if e.task in {k.task for k in episodes if not k.error}
    ]
    with ChatServer(listed) as server:
        assert play(server)[1] == whole


def test_a_spend_limit_needs_prices_and_a_server_that_counts():
    with pytest.raises(UsageError, match="a spend limit needs prices"):
        ModelOptions(spend_limit=1)
    says = "does not count tokens: a spend limit cannot be kept"
    with ChatServer(lambda _: {**completion(NOOP), "usage": None}) as server, pytest.raises(PolicyFault, match=says):
        play(server, options=ModelOptions(spend_limit=1, input_price=1))


def test_two_servers_that_are_compared_share_one_budget():
    with ChatServer(listed) as base, ChatServer(listed) as tuned:
        pair = load_policy_pair(base.url, tuned.url, ModelOptions(spend_limit=1, input_price=1))
    assert pair[0].server.budget is pair[1].server.budget


def test_the_cache_holds_no_key_and_what_is_damaged_in_it_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-42")
    options = ModelOptions(cache=str(tmp_path))
    with ChatServer(listed) as server:
        _, first = play(server, options=options)
        asked = len(server.requests)
        files = sorted(tmp_path.rglob("*.json"))
        assert len(files) == asked
        assert not any("secret" in file.read_text() for file in files)
        files[0].write_text("{")
        files[1].write_text("[" * 100_000)
        files[2].write_text(json.dumps({"request": {}, "response": completion("<action>up</action>")}))
        assert play(server, options=options)[1] == first
        assert len(server.requests) == asked + 3
        play(server, 2, options, at_once=1)
        assert len(server.requests) == asked + 3
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        ChatClient(server.url, ModelOptions(cache=str(tmp_path / "file")))


def test_the_completions_api_gets_the_conversation_as_one_text():
    def answer(request):
        assert not {"messages", "chat_template_kwargs", "tools"} & set(request)
        text = request["prompt"].rpartition("Possible: ")[2].split(" | ")[0]
        return {"choices": [{"text": f"<action>{text.strip()}", "finish_reason": "stop"}]}

    with ChatServer(answer) as server:
        _, episodes = play(server, 2, chat=False)
        assert load_policy(f"{server.url}/completions").server.chat is False
    assert all(step.action in step.admissible for episode in episodes for step in episode.steps)
    longest = max((request["prompt"] for request in server.requests), key=len)
    assert longest.count("<action>") == 2  # what the prompt asks for, and the reply that was given
    assert longest.endswith("\n")


def test_a_password_in_an_address_is_refused_and_shown_nowhere(tmp_path):
    for where in ("http://me:s3cret@host/v1#m", "http://me:s3c/ret@host/v1#m", "http://me:s3c#ret@host/v1"):
        code, out, err = run("evaluate", where, "-d", "crafting")
        assert code == 2
        assert "host/v1" in err
        assert not any(part in out + err for part in ("s3c", "ret@"))


def test_the_command_line_says_what_was_asked(tmp_path):
    with ChatServer(listed) as server:
        command = ["evaluate", server.url, "-d", "crafting", "--admissible", "--tasks", "2", "--cache", tmp_path / "c"]
        code, out, _ = run(*command, "--input-price", "3", "--json", tmp_path / "r.json")
        assert code == 0
        assert f"toy: {len(server.requests)} requests: {len(server.requests)} tokens in" in out
        assert json.loads((tmp_path / "r.json").read_text())["usage"]["cost"] == pytest.approx(
            3e-6 * len(server.requests)
        )
        _, out, _ = run(*command)
        assert f"toy: 0 requests, {len(server.requests)} more from the cache" in out
