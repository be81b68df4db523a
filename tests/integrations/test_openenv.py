"""A domain behind an OpenEnv server, played by OpenEnv's own client over loopback with the shipped model."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager

import pytest

import gentax
from gentax.core import UsageError
from gentax.domains.registry import parse_domain
from gentax.integrations.openenv import openenv_app


@contextmanager
def served(app):
    """Serve an application on loopback; yield its address."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def test_a_client_plays_a_task_over_loopback():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    from openenv.core import GenericEnvClient

    local = gentax.distract(gentax.make("sokoban", "6x6"), volume=80)
    shown, info = local.reset(options={"index": 3, "split": "test"})
    app = openenv_app("sokoban", ["distract(volume=80)"], level="6x6")
    with served(app) as url, GenericEnvClient(base_url=url).sync() as client:
        result = client.reset(task=info["task"].id)
        assert (result.observation["text"], result.observation["goal"]) == (shown, info["goal"])
        while not result.done:
            result = client.step({"text": local.expert().action})
            assert result.observation["text"] == local.step(local.expert().action)[0]
        assert result.reward == 1.0
        assert result.observation["success"] is True


def test_a_server_of_openenv_is_played_as_a_domain():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    local = gentax.make("crafting")
    with served(openenv_app("crafting")) as url:
        assert parse_domain(f"openenv:{url}") == (f"openenv:{url}", None)
        env = gentax.make(f"openenv:{url}")
        task = env.tasks("test", 1)[0]
        shown, info = env.reset(options={"task": task})
        assert env.reset(options={"task": task})[0] == shown  # it follows its seed
        assert info["goal"] != local.domain.about
        assert env.step("xyzzy")[4] == {"valid": False, "success": False}
        env.close()
        report = gentax.evaluate(lambda messages: "<action>noop</action>", [f"openenv:{url}"], tasks=2)
    (episodes,) = report.episodes.values()
    assert {(e.outcome, e.goal == local.domain.about) for e in episodes} == {("failure", False)}


def other_peoples_app(fields):
    """An OpenEnv server that is not ours: it says back what it was told, until told `stop`."""
    from openenv.core import env_server
    from pydantic import create_model

    action = create_model("EchoAction", __base__=env_server.Action, **fields)
    observation = create_model("EchoObservation", __base__=env_server.Observation, message=(str, ...))

    class Echo(env_server.Environment):
        def reset(self, seed=None, episode_id=None, **_):
            return observation(message="say stop")

        def step(self, said, timeout_s=None, **_):
            done = said.word == "stop"
            return observation(message=f"you said {said.word}", done=done, reward=float(done))

        @property
        def state(self):
            return env_server.State()

    return env_server.create_fastapi_app(Echo, action, observation)


def test_an_openenv_server_of_somebody_else_is_played_where_its_action_is_one_text():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    with served(other_peoples_app({"word": (str, ...)})) as url:
        report = gentax.evaluate(lambda messages: "<action>stop</action>", [f"openenv:{url}"], tasks=2)
        assert [e.outcome for e in report.episodes[f"openenv:{url}"]] == ["success"] * 2
        assert report.episodes[f"openenv:{url}"][0].final == "you said stop"
    refused = pytest.raises(UsageError, match="wants more of an action than one text: word, count")
    with served(other_peoples_app({"word": (str, ...), "count": (int, ...)})) as url, refused:
        gentax.make(f"openenv:{url}")
    with pytest.raises(UsageError, match="is no OpenEnv server"):
        gentax.make(f"openenv:{url}")


def test_what_is_wrong_is_said_before_anything_is_served():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        openenv_app("sokobn")
