"""Models behind servers: success, tokens and errors of each; and what the client adds to a server's time.

    python benchmarks/servers.py http://localhost:8000/v1#model …    # any that speaks the OpenAI API
    python benchmarks/servers.py --overhead                          # a stand-in that takes 0.5 s for every reply

The overhead is that of 64 episodes at once on loopback. The stand-in is a process of its own that answers all requests
concurrently, each after the same time, so that without a client a round of 64 replies takes that time. What is beyond
it, per round, is the client's: prompts, environments, HTTP, parsing, and the stand-in's own. Two rounds are played
before the timed ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Sequence

from gentax.core import Outcome, Task
from gentax.core.errors import PolicyFault
from gentax.domains import domain
from gentax.policies import load_policy
from gentax.rollouts import RolloutConfig, rollout

AT_ONCE = 64
REPLY = "<action>up</action>"


def tasks_of(name: str, count: int) -> list[Task]:
    """Return the first test tasks of a domain at its default level."""
    return [Task(name, domain(name).default_level, "test", index) for index in range(count)]


def play(url: str, name: str, count: int, config: RolloutConfig) -> None:
    """Print a line about a model behind a server."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            policy = load_policy(url)
            episodes = rollout(policy, tasks_of(name, count), config=config)
        except PolicyFault as fault:
            print(f"{url}: {fault}")
            return
    seconds = time.perf_counter() - started
    outcomes = Counter(episode.outcome for episode in episodes)
    steps = [step for episode in episodes for step in episode.steps]
    unread = sum(not step.action for step in steps)
    print(f"{policy.name}: success in {outcomes[Outcome.SUCCESS]} of {count}, {outcomes[Outcome.ERROR]} errors")
    print(f"  {policy.usage}; {seconds:.0f} s; {unread} of {len(steps)} replies held no action")
    for text in {str(warning.message) for warning in warned} | {episode.error for episode in episodes} - {""}:
        print(f"  {text}")


def overhead(seconds: float, rounds: int, repeats: int) -> None:
    """Print what the client adds to the time of a server."""
    config = RolloutConfig(horizon=rounds)
    command = [sys.executable, __file__, "--serve", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            policy = load_policy(f"http://127.0.0.1:{server.stdout.readline().strip()}/v1#stand-in")
            # Not timed: the first request is sent alone, and threads, connections and rooms are made.
            rollout(policy, tasks_of("sokoban", AT_ONCE), config=RolloutConfig(horizon=2), parallel=AT_ONCE)
            shares = []
            for _ in range(repeats):
                started = time.perf_counter()
                episodes = rollout(policy, tasks_of("sokoban", AT_ONCE), config=config, parallel=AT_ONCE)
                took = (time.perf_counter() - started) / max(episode.length for episode in episodes)
                shares.append(took / seconds - 1)
        finally:
            server.terminate()
    print(
        f"{AT_ONCE} episodes at once, {seconds:g} s a reply: overhead {statistics.median(shares):.1%} "
        f"({min(shares):.1%} to {max(shares):.1%} in {repeats} runs of {rounds} rounds)"
    )


async def serve(seconds: float) -> None:
    """Answer every request after `seconds`; print the port."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REPLY}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage, "data": []}).encode()
    response = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            await asyncio.sleep(seconds if head.startswith(b"POST") else 0)
            writer.write(response)
            await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", nargs="*", help="http://host:port/v1#model")
    parser.add_argument("--domain", default="crafting")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--horizon", type=int, default=10)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--admissible", action="store_true", help="list the admissible actions in the prompt")
    parser.add_argument("--overhead", action="store_true", help="time the client against a stand-in")
    parser.add_argument("--seconds", type=float, nargs="*", default=[0.2, 0.5, 1.0], help="the stand-in's, for a reply")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve is not None:
        asyncio.run(serve(chosen.serve))
        return
    config = RolloutConfig(
        horizon=chosen.horizon, max_new_tokens=chosen.max_new_tokens, admissible=chosen.admissible, temperature=0
    )
    for url in chosen.url:
        play(url, chosen.domain, chosen.tasks, config)
    if chosen.overhead:
        for seconds in chosen.seconds:
            overhead(seconds, chosen.rounds, chosen.repeats)


if __name__ == "__main__":
    main()
