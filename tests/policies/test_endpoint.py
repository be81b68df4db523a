"""A policy behind a server: what is asked, what is made of what is said, and that a refusal is one line."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest

from chat_server import ChatServer, completion, listed
from gentax.core import Task, UsageError
from gentax.core.errors import PolicyFault
from gentax.models.action_format import parse_reply
from gentax.models.options import ChatOptions, SamplingParams
from gentax.policies import PolicyRequest, Reply, load_policy
from gentax.policies.chat_client import ChatClient
from gentax.policies.completion import TEXT_LIMIT, parse_completion
from gentax.policies.endpoint import EMPTY_REPLY, EndpointPolicy, parse_endpoint_url
from gentax.rollouts import RolloutConfig, rollout


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("gentax.policies.chat_client.BACKOFF_S", 0.001)


def tasks(n, name="crafting"):
    from gentax.domains import domain

    return [Task(name, domain(name).default_level, "test", i) for i in range(n)]


def policy(server, **settings):
    return EndpointPolicy(ChatClient(server.url, **{"retries": 1, **settings}), "toy")


class Direct:
    """The same conversation held without a server: `answer` is called in place."""

    name = "direct"

    def __init__(self, answer):
        self.answer, self.said = answer, {}

    def reply(self, turns):
        replies = []
        for turn in turns:
            said = self.said[turn.slot] = [*(self.said[turn.slot] if turn.continues else []), turn.message]
            messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
            text = self.answer({"messages": messages, "seed": int(turn.rng.integers(2**31 - 1))})
            said.append(text)
            replies.append(Reply(text, len(text.split())))
        return replies


@pytest.mark.parametrize("context", ["full", "window(2)"])
def test_episodes_are_those_played_without_a_server(context):
    config = RolloutConfig(context=context, thinking=True, admissible=True)
    with ChatServer(listed) as server:
        served = rollout(policy(server), tasks(6), config=config, seed=3, parallel=4)
    assert served == rollout(Direct(listed), tasks(6), config=config, seed=3, parallel=4)
    assert {step.thought[:6] for episode in served for step in episode.steps} == {"one of"}


def test_what_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame\n")
    with ChatServer(listed) as server:
        rollout(
            policy(server),
            tasks(1),
            config=RolloutConfig(admissible=True, temperature=0.7, max_new_tokens=21, horizon=3),
            seed=5,
        )
    first, second, third = server.requests
    assert server.keys == {"Bearer sesame"}
    assert [m["role"] for m in third["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert third["messages"][:3] == second["messages"]
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1]["content"] == listed(first)
    seed = first.pop("seed")
    assert 0 <= seed < 2**31
    assert seed != second["seed"]
    del first["messages"]
    assert (first.pop("model"), first.pop("temperature"), first.pop("max_tokens")) == ("toy", 0.7, 21)
    assert first == {
        "top_p": 1.0, "top_k": 0, "min_p": 0.0, "typical_p": 1.0,
        "repetition_penalty": 1.0, "repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        "stop": ["</action>"], "skip_special_tokens": False, "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip


def asked(seed, parallel):
    with ChatServer(listed) as server:
        rollout(
            policy(server), tasks(5), config=RolloutConfig(admissible=True, horizon=5), seed=seed, parallel=parallel
        )
    return sorted(json.dumps(request) for request in server.requests)


def test_the_same_seeds_give_the_same_requests_however_many_play_at_once():
    assert asked(1, 5) == asked(1, 2)
    assert asked(1, 5) != asked(2, 5)


def test_all_turns_are_asked_at_once():
    barrier = threading.Barrier(8, timeout=20)

    def answer(request):
        if len(server.requests) > 8:  # once the server is known
            barrier.wait()  # nobody is answered before eight have asked
        return "<action>noop</action>"

    with ChatServer(answer) as server:
        rollout(policy(server), tasks(8), config=RolloutConfig(horizon=2))
        assert server.most == 8


def test_no_more_are_asked_than_allowed():
    with ChatServer(lambda _: time.sleep(0.01) or "<action>noop</action>") as server:
        rollout(policy(server, at_once=3), tasks(8), config=RolloutConfig(horizon=2))
        assert server.most == 3


SOON = {"retry-after": "0.001"}


def test_a_server_that_stumbles_is_asked_again():
    with ChatServer(lambda _: "<action>noop</action>") as server:
        server.faults = [
            (500, {"error": {"message": "oops"}}, SOON),
            (429, {"error": {"message": "too fast"}}, SOON),
            (503, b"<html>busy</html>", SOON),
            (200, b'{"choices": [{"mess', {}),
        ]
        (episode,) = rollout(policy(server, retries=3), tasks(1), config=RolloutConfig(horizon=2))
        assert [step.text for step in episode.steps] == ["<action>noop</action>"] * 2
        assert len(server.requests) == 6
        assert len({request["seed"] for request in server.requests}) == 2  # asked again with the same seed


def test_odd_answers_are_text():
    bodies = [
        completion(""),
        completion([{"type": "text", "text": "<action>le"}, {"type": "image"}, "x", {"text": "ft</action>"}]),
        completion("x" * 5_000_000),
        completion("lone \ud800 surrogate <action>a\ud800</action>"),
        {**completion("<action>left</action>"), "usage": None},
        {**completion("<action>left</action>"), "usage": {"completion_tokens": "many"}},
    ]
    unsent = iter(bodies)
    with ChatServer(lambda _: next(unsent)) as server:
        (episode,) = rollout(policy(server), tasks(1), config=RolloutConfig(horizon=len(bodies)))
    texts = [step.text for step in episode.steps]
    assert texts[:2] == ["", "<action>left</action>"]
    assert len(texts[2]) == TEXT_LIMIT
    assert episode.steps[3].action == "a?"
    assert [step.written for step in episode.steps[-2:]] == [None] * 2
    assert [m["content"] for m in server.requests[1]["messages"]][1] == EMPTY_REPLY  # an empty message is never sent


@pytest.mark.parametrize(
    ("said", "stopping", "text", "action", "thought"),
    [
        (completion("<action>left"), True, "<action>left</action>", "left", ""),
        (completion("<action>left", "length"), True, "<action>left", "", ""),
        (completion("<action>left"), False, "<action>left", "", ""),
        (completion("<action>a</action>\nYou\n<action>b</action>"), False, "<action>a</action>", "a", ""),
        (completion("<action>a</action>", reasoning="hm"), False, "<think>hm</think><action>a</action>", "a", "hm"),
        (completion("hm</think><action>left"), True, "<think>hm</think><action>left</action>", "left", "hm"),
        (completion(None, "length", reasoning="so <action>x</action>"), True, "<think>so [action]x[/action]", "", ""),
        (completion(None, reasoning_content="<action>left</action>"), False, "<action>left</action>", "left", ""),
    ],
)
def test_marks_that_a_server_takes_away_are_put_back(said, stopping, text, action, thought):
    answer = parse_completion(said, stopping)
    assert (answer.text, answer.cut_off) == (text, False)
    assert parse_reply(answer.text) == (action, thought)


def test_a_thought_that_quotes_the_mark_is_not_cut_off_there():
    def answer(request):
        if "stop" in request:
            return completion(None, reasoning_content="they want <action>your action")
        return completion("\n\n<action>noop</action>", reasoning_content="they want <action>x</action>, I wait")

    with ChatServer(answer) as server:
        (episode,) = rollout(policy(server), tasks(1), config=RolloutConfig(horizon=3))
    assert [step.action for step in episode.steps] == ["noop"] * 3
    assert episode.steps[0].thought == "they want [action]x[/action], I wait"
    assert ["stop" in request for request in server.requests] == [True, False, False, False]


def test_a_context_that_is_too_long_loses_its_oldest_exchanges():
    def answer(request):
        said = request["messages"]
        if sum(len(m["content"]) for m in said) > 1000:
            return 400, {"error": {"message": "This model's maximum context length is 400 tokens.", "code": 400}}, {}
        return f"<action>noop</action>{len(said)}"

    with ChatServer(answer) as server:
        episodes = rollout(policy(server), tasks(2), config=RolloutConfig(horizon=20))
    assert [e.length for e in episodes] == [20, 20]
    first = {request["messages"][0]["content"] for request in server.requests}
    assert len(first) == 2  # the rules and the goal of each stay
    last = server.requests[-1]["messages"]
    assert [m["role"] for m in last] == [("user", "assistant")[i % 2] for i in range(len(last))]
    assert 3 < len(last) < 39
    assert last[-1]["content"] == episodes[-1].steps[-1].observation
    assert len(server.requests) < 100
    assert all(sum(step.dropped for step in e.steps) > 5 and not any(s.prompt_cut for s in e.steps) for e in episodes)


def test_a_first_message_that_is_too_long_loses_its_middle():
    def answer(request):
        (message,) = request["messages"]
        if len(message["content"]) > 300:
            return 400, {"error": {"message": "the request exceeds the available context size"}}, {}
        return "<action>noop</action>"

    with ChatServer(answer) as server:
        (episode,) = rollout(policy(server), tasks(1), config=RolloutConfig(context="window(0)", horizon=2))
    whole, least = (server.requests[i]["messages"][0]["content"] for i in (0, -1))
    assert episode.length == 2
    assert whole[:50] == least[:50]
    assert [step.prompt_cut for step in episode.steps] == [True, True]


@pytest.mark.parametrize(
    "name", ["seed", "skip_special_tokens", "stop", "top_p", "max_tokens", "repeat_penalty", "chat_template_kwargs"]
)
def test_a_setting_that_a_server_does_not_know_is_left_out(name):
    def answer(request):
        if name in request:
            return 400, {"error": {"message": f"Unsupported parameter: '{name}'.", "param": name}}, {}
        return "<action>noop</action>"

    with ChatServer(answer) as server, pytest.warns(UserWarning, match=f"takes no {name}: played without") as said:
        rollout(policy(server), tasks(3), config=RolloutConfig(horizon=3))
    assert len(said) == 1
    good = [request for request in server.requests if name not in request]
    assert len(good) == 9
    assert len(server.requests) == 10  # the first question of all was refused, and no other
    assert {request.get("max_completion_tokens") for request in good} == {512 if name == "max_tokens" else None}


def test_no_top_k_is_said_as_the_server_wants_it():
    def answer(request):
        if request.get("top_k") == 0:
            return 400, {"message": "top_k must be -1 (disable) or at least 1, got 0."}, {}
        return "<action>noop</action>"

    with ChatServer(answer) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        rollout(policy(server), tasks(2), config=RolloutConfig(horizon=2))
    assert [request["top_k"] for request in server.requests] == [0, -1, -1, -1, -1]


def test_the_settings_that_a_server_does_not_know_are_named_in_one_warning():
    unsupported = ["min_p", "repeat_penalty", "seed", "typical_p"]

    def answer(request):
        if refused := [name for name in unsupported if name in request]:
            return 422, {"detail": f"Unexpected fields in the request: {set(refused)}"}, {}
        return "<action>noop</action>"

    with ChatServer(answer) as server, pytest.warns(UserWarning, match="takes no") as warned:
        rollout(policy(server), tasks(2), config=RolloutConfig(horizon=2))
    (warning,) = warned
    assert "takes no min_p, repeat_penalty, seed, typical_p: played without" in str(warning.message)
    assert len(server.requests) == 5


def test_what_the_user_has_set_is_never_dropped():
    def answer(request):
        return (400, {"error": {"message": "unknown field: top_k"}}, {}) if "top_k" in request else "<action>x</action>"

    sampling = SamplingParams(temperature=0.7, top_k=20, top_p=0.9)
    turn = PolicyRequest(0, "Say it.", False, None, np.random.default_rng(0), sampling)
    with ChatServer(answer) as server, pytest.raises(UsageError, match="takes no top_k, and 20 was asked for"):
        policy(server).reply([turn])
    assert (server.requests[0]["top_k"], server.requests[0]["top_p"]) == (20, 0.9)


def test_a_system_prompt_and_thinking_are_sent_and_outlive_a_short_context():
    def answer(request):
        if len(request["messages"]) > 4:
            return 400, {"error": {"message": "maximum context length"}}, {}
        return "<action>noop</action>"

    chat = ChatOptions(thinking=True, system_prompt="Be brief.")
    with ChatServer(answer) as server:
        asked = policy(server)
        for n in range(4):
            turn = PolicyRequest(0, f"m{n}", n > 0, None, np.random.default_rng(n), SamplingParams(), chat)
            asked.reply([turn])
    last = server.requests[-1]
    assert [(m["role"], m["content"]) for m in last["messages"]][:2] == [("system", "Be brief."), ("user", "m0")]
    assert last["messages"][-1]["content"] == "m3"
    assert last["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ((500, {"error": {"message": "out of\nmemory"}}, SOON), r"fails \(HTTP 500\): out of memory"),
        ((502, b"<html>Bad gateway\x1b[2J</html>", SOON), r"HTTP 502\): <html>Bad gateway \[2J"),
        ((429, {"error": {"message": "no quota"}}, SOON), r"allows no more requests \(HTTP 429\): no quota"),
        ((400, {"detail": [{"loc": ["body", "model"], "msg": "bad"}]}, {}), "HTTP 400.*'msg': 'bad'"),
        ((200, b"<html>Welcome</html>", {"content-type": "text/html"}), "no completion: <html>Welcome"),
        ((200, b"[" * 100_000, {}), r"no completion: \[\["),
        ((200, b"", {}), "no completion: nothing"),
        ((200, {"error": {"message": "upstream is down", "code": 502}}, {}), "upstream is down"),
        ((307, b"", {"location": "/v1/chat/completions"}), "redirects to /v1/chat/completions, which is not followed"),
    ],
)
def test_a_server_that_will_not_answer_ends_the_run_with_one_line(response, says, monkeypatch):
    monkeypatch.setattr("gentax.policies.chat_client.RETRY_PAUSES_S", (0.001,))
    with ChatServer(lambda _: response) as server, pytest.raises(PolicyFault, match=says) as fault:
        rollout(policy(server), tasks(3))
    assert server.url in str(fault.value)
    assert len(str(fault.value).splitlines()) == 1
    assert len(str(fault.value)) < 320


def test_a_wrong_key_a_missing_key_and_an_unknown_model_are_told_apart(monkeypatch):
    refusal = 401, {"error": {"message": "Incorrect key: secret-42"}}, {}
    with ChatServer(listed, refusal) as server:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(PolicyFault, match="wants a key; set OPENAI_API_KEY"):
            load_policy(f"{server.url}#toy")
        monkeypatch.setenv("OPENAI_API_KEY", "secret-42")
        with pytest.raises(PolicyFault, match="refuses the key in OPENAI_API_KEY") as fault:
            load_policy(f"{server.url}#toy")
        assert "secret" not in str(fault.value)
        monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
        with pytest.raises(UsageError, match="cannot be sent"):
            load_policy(f"{server.url}#toy")
    monkeypatch.delenv("OPENAI_API_KEY")
    gone = 404, {"error": {"message": "The model does not exist."}}, {}
    with ChatServer(lambda _: gone, ["sokoban-tuned", "base"]) as server:
        found = load_policy(f"{server.url}#sokoban-tunde")
        with pytest.raises(UsageError, match="did you mean 'sokoban-tuned'"):
            rollout(found, tasks(1))


def test_the_only_model_is_taken_and_several_are_listed():
    with ChatServer(listed, ["org/one:8b"]) as server:
        found = load_policy(server.url)
        assert found.name == "org/one:8b"
        server.models = ["a", "b"]
        with pytest.raises(UsageError, match=r"has 2 models; name one as .*#MODEL\. It has: a, b"):
            load_policy(server.url)
        server.models = []
        with pytest.raises(UsageError, match="lists no model; name it as"):
            load_policy(server.url)
        for odd in ((200, {"data": None}, {}), (200, b"<html>", {"content-type": "text/html"}), (200, b"{", {})):
            server.models = odd
            with pytest.raises(PolicyFault, match="does not list models"):
                load_policy(server.url)
            assert load_policy(f"{server.url}#named").name == "named"  # it may still play
        server.models = (404, {"detail": "Not Found"}, {})
        assert load_policy(f"{server.url}#named").name == "named"  # believed where there is no list
        with pytest.raises(PolicyFault, match="HTTP 404"):
            load_policy(server.url)


def test_a_server_that_is_not_there_is_known_at_once():
    with ChatServer(listed) as server:
        pass
    with pytest.raises(PolicyFault, match=r"cannot reach http://127"):
        load_policy(f"{server.url}#toy")
    with ChatServer(listed) as server, pytest.raises(PolicyFault, match=r"cannot reach https.*SSL"):
        load_policy(server.url.replace("http:", "https:"))


def test_a_server_that_is_silent_is_not_waited_for_forever():
    wake = threading.Event()
    with ChatServer(lambda _: str(wake.wait(20))) as server:
        with pytest.raises(PolicyFault, match="did not answer in time"):
            rollout(policy(server, retries=0, timeout_s=0.2), tasks(2))
        wake.set()


def test_what_nobody_waits_for_any_more_is_not_asked_on():
    ended = threading.Event()

    async def forever():
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    server = ChatClient("http://127.0.0.1:9/v1")
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        server.gather([forever()])
    assert ended.wait(10)


def test_urls_are_read():
    assert parse_endpoint_url("http://localhost:8000/v1#my-model") == ("http://localhost:8000/v1", "my-model", True)
    assert parse_endpoint_url("http://localhost:8000") == ("http://localhost:8000/v1", "", True)
    assert parse_endpoint_url("https://host/api/v2/#org/name:7b") == ("https://host/api/v2", "org/name:7b", True)
    assert parse_endpoint_url("http://host/v1/chat/completions#m") == ("http://host/v1", "m", True)
    assert parse_endpoint_url("http://host/v1/completions#m") == ("http://host/v1", "m", False)


@pytest.mark.parametrize("where", ["http://", "ftp://host/v1", "http://host:port/v1", "http://[::1", "http://a b/v1"])
def test_what_is_no_url_is_refused(where):
    with pytest.raises(UsageError, match="no URL of a server"):
        load_policy(where)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("expertt", "'expert'"),
        ("randm", "'random'"),
        ("bse", "'base'"),
        ("localhost:8000#m", "'http://localhost:8000#m'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, says):
    with pytest.raises(UsageError, match=f"did you mean {says}"):
        load_policy(name)


def test_a_policy_that_is_deleted_hangs_up():
    with ChatServer(listed) as server:

        def client_threads():
            return [thread for thread in threading.enumerate() if server.url in thread.name]

        client = policy(server)
        rollout(client, tasks(1), config=RolloutConfig(admissible=True, horizon=1))
        assert client_threads()
        del client
        gc.collect()
        deadline = time.monotonic() + 10
        while client_threads() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not client_threads()


def test_a_tool_is_offered_and_its_result_goes_back_to_the_call():
    def answer(request):
        (tool,) = request["tools"]
        assert "stop" not in request
        name = tool["function"]["name"]
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": '{"action": "noop"}'}}
        return completion("I wait.", tool_calls=[call])

    config = RolloutConfig(action_format="tool_calls", system_prompt="Be brief.", horizon=3)
    with ChatServer(answer) as server:
        (episode,) = rollout(policy(server), tasks(1), config=config)
    assert [step.action for step in episode.steps] == ["noop"] * 3
    assert episode.steps[0].thought == "I wait."
    said = server.requests[-1]["messages"]
    assert [message["role"] for message in said] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert said[0]["content"] == "Be brief."
    assert said[2]["content"] == "I wait."
    assert json.loads(said[2]["tool_calls"][0]["function"]["arguments"]) == {"action": "noop"}
    assert said[2]["tool_calls"][0]["id"] == said[3]["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    ("calls", "action"),
    [
        ([None, 3, {}], ""),
        ([{"function": {"name": "rm", "arguments": '{"action": "x"}'}}], ""),
        ([{"function": {"name": "act", "arguments": {"action": "go\ud800"}}}], "go?"),
        ([{"id": 7, "function": {"name": "act", "arguments": '{"action": "a"}'}}] * 2, "a"),
    ],
)
def test_calls_of_any_shape_are_read(calls, action):
    answer = parse_completion(completion("", tool_calls=calls), False, "tool_calls")
    assert parse_reply(answer.text, "tool_calls").action == action
    assert bool(answer.call_id) == bool(action)


def test_json_and_cut_answers_of_a_server():
    bodies = iter(
        [completion('{"action": "noop"}'), completion("I think that", "length"), completion("<think>", "length")]
    )
    with ChatServer(lambda _: next(bodies)) as server:
        (episode,) = rollout(policy(server), tasks(1), config=RolloutConfig(action_format="json", horizon=3))
    assert [step.action for step in episode.steps] == ["noop", "", ""]
    assert [step.truncated for step in episode.steps] == [False, True, True]
    assert (episode.truncated, episode.invalid) == (2, 0 if episode.steps[0].valid else 1)
    assert 'JSON object: {"action": "your action"}' in server.requests[0]["messages"][0]["content"]
