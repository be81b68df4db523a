"""A domain behind an OpenEnv server, played by OpenEnv's own client over loopback with the shipped model."""

from __future__ import annotations

import socket
import threading
import time

import pytest

import gentax
from gentax.core import UsageError
from gentax.integrations.openenv_server import openenv_app


def test_a_client_plays_a_task_over_loopback():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    import uvicorn
    from openenv.core import GenericEnvClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = openenv_app("sokoban", ["distract(volume=80)"], level="6x6")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    local = gentax.distract(gentax.make("sokoban", "6x6"), volume=80)
    shown, info = local.reset(options={"index": 3, "split": "test"})
    try:
        with GenericEnvClient(base_url=f"http://127.0.0.1:{port}").sync() as client:
            result = client.reset(task=info["task"].id)
            assert (result.observation["text"], result.observation["goal"]) == (shown, info["goal"])
            while not result.done:
                result = client.step({"text": local.expert().action})
                assert result.observation["text"] == local.step(local.expert().action)[0]
            assert result.reward == 1.0
            assert result.observation["success"] is True
    finally:
        server.should_exit = True
        thread.join(10)


def test_what_is_wrong_is_said_before_anything_is_served():
    pytest.importorskip("openenv.core.env_server", reason="pip install openenv")
    with pytest.raises(UsageError, match="did you mean 'sokoban'"):
        openenv_app("sokobn")
