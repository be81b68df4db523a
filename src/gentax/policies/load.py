"""Load a policy by its name: `random`, `expert`, a model, a server's URL, or `module:attribute` for the user's own.

The user's own policy is, in short form, a function of one episode's conversation, in the form of chat APIs:

    def my_policy(messages: list[dict[str, str]]) -> str:
        return "<action>look</action>"

A callable object is the same. The batched form has `reply(requests)`, see `protocol.Policy`. Either may be given as a
class, or as a function without arguments that returns it. Not supported: token ids, so nothing can be trained on such a
policy's episodes, and asynchronous functions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from gentax.core import EnvironmentFault, ExpertAction, PolicyFault, UsageError
from gentax.core.errors import nearest
from gentax.core.imports import EXTRAS, LOCAL, format_error, is_import_path, load_attribute, require_modules
from gentax.models.action_format import write_reply
from gentax.models.options import ModelOptions
from gentax.models.source import may_name_model
from gentax.policies.endpoint import EndpointPolicy, connect_endpoint
from gentax.policies.protocol import Policy, PolicyRequest, Reply, max_parallel_episodes

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*|#.*|)")  # host:port without a scheme


KNOWN = 1024  # actions remembered, at most


class RandomPolicy:
    """Samples an admissible action; "wait" where the environment cannot list them."""

    name = "random"

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(lambda turn: ExpertAction(_sample_admissible(turn)), turn) for turn in turns]


class ExpertPolicy:
    """Plays the domain's expert, with random errors at rate `noise`.

    An error is an action this policy knows from other states of the domain; like a model's errors, many are invalid
    here, which shows how to continue after them. Where the expert has no action, an admissible one is sampled.
    """

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.name = "expert" if noise == 0 else f"expert with {noise:.0%} slips"
        self._known: dict[str, dict[str, None]] = {}  # domain -> the actions of its expert so far, in order

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        return [_guarded(self._next_action, turn) for turn in turns]

    def _next_action(self, turn: PolicyRequest) -> ExpertAction:
        known = self._known.setdefault(turn.env.domain.name, {})
        if self.noise and known and turn.rng.random() < self.noise:
            return ExpertAction(list(known)[int(turn.rng.integers(len(known)))])
        move = turn.env.expert()
        if move is None:
            return ExpertAction(_sample_admissible(turn))
        if len(known) < KNOWN:
            known[move.action] = None
        return move


SCRIPTED_BY_NAME = {"random": RandomPolicy, "expert": ExpertPolicy}
SCRIPTED = (RandomPolicy, ExpertPolicy)  # they ignore the prompt and always use the action format


def _guarded(choose: Callable[[PolicyRequest], ExpertAction], turn: PolicyRequest) -> Reply:
    try:
        move = choose(turn)
    except EnvironmentFault:
        return Reply("")  # the engine will meet the same fault and replay the episode
    return Reply(write_reply(move.action, move.thought if turn.chat.thinking else None, turn.chat.action_format))


def _sample_admissible(turn: PolicyRequest) -> str:
    actions = turn.env.admissible()
    return actions[int(turn.rng.integers(len(actions)))] if actions else "wait"


def load_policy(what: str | Path | Policy | Callable[..., Any], options: ModelOptions = ModelOptions()) -> Policy:
    """Return a policy: a given one, "random", "expert", "base", a local model or one behind a URL.

    A local model is a folder, a hub id (`org/name[@revision]`), a PEFT adapter or a `.gguf` file, loaded with
    `options` (see `models.source`). A URL is that of an OpenAI-compatible server, such as
    `http://localhost:8000/v1#model` (see `policies.endpoint`).

    Raises:
        UsageError: no such policy, folder, model or module.
        PolicyFault: a server that cannot be reached or refuses the key.
    """
    if not isinstance(what, (str, Path)):
        if hasattr(what, "reply") and not isinstance(what, type):
            return cast(Policy, what)
        return wrap_user_policy(what)
    if str(what) in SCRIPTED_BY_NAME:
        return SCRIPTED_BY_NAME[str(what)]()
    if isinstance(what, str) and "://" in what:
        return connect_endpoint(what, options)
    if not Path(what).exists() and is_import_path(str(what)):
        return wrap_user_policy(load_attribute("policy", str(what), [*SCRIPTED_BY_NAME, "base"]), str(what))
    if not may_name_model(what):
        if _HOST_AND_PORT.fullmatch(str(what)):
            raise UsageError(f"no model folder {str(what)!r}; if it is a server, did you mean 'http://{what}'?")
        if (close := nearest(what, [*SCRIPTED_BY_NAME, "base"])) in SCRIPTED_BY_NAME:
            raise UsageError(f"no policy or model folder {str(what)!r}; did you mean {close!r}?")
    gguf = EXTRAS["gguf"].modules if str(what).lower().endswith(".gguf") else ()
    require_modules(f"the model {str(what)[:200]!r}", *LOCAL, *gguf)
    from gentax.policies.local import load_local_policy  # PyTorch is only loaded when a model is

    return load_local_policy(what, options)


def load_policy_pair(
    base: str | Path | Policy | Callable[..., Any],
    tuned: str | Path | Policy | Callable[..., Any],
    options: ModelOptions = ModelOptions(),
) -> tuple[Policy, Policy]:
    """Load two policies as `load_policy` does; in vLLM each takes half of the memory, and servers share a budget."""
    each = replace(options, vllm_memory=options.vllm_memory / 2)
    pair = load_policy(base, each), load_policy(tuned, each)
    clients = [policy.server for policy in pair if isinstance(policy, EndpointPolicy)]
    for client in clients[1:]:
        client.budget = clients[0].budget
    return pair


Message = dict[str, str]


def wrap_user_policy(policy: Any, name: str = "") -> Policy:
    """Wrap a policy, a class or factory of one, or a function of the conversation.

    Args:
        policy: the user's object.
        name: in reports, for a policy without a `name`; defaults to that of the function or class.

    Raises:
        UsageError: `policy` is none of these, or its class or factory fails.
    """
    name = name or getattr(policy, "__name__", type(policy).__name__)
    file = _file(policy)
    if inspect.isclass(policy) or (callable(policy) and not hasattr(policy, "reply") and _takes_no_arguments(policy)):
        policy = _instantiate(policy, name, file)
    if not hasattr(policy, "reply"):
        if not callable(policy):
            raise UsageError(
                f"policy {name!r} is of type {type(policy).__name__}; it must be a function of the conversation, "
                "or have `reply(turns)`"
            )
        policy = FunctionPolicy(policy, name)
    own = getattr(policy, "name", None)
    return UserPolicy(policy, own if isinstance(own, str) and own else name, file)


class FunctionPolicy:
    """Plays by calling a function for one episode after the other.

    Args:
        function: gets the messages so far, with `role` ("user", "assistant" or "system") and `content`, and returns the
            reply. With `context="window(k)"` each conversation is one user message.
        name: in reports.
    """

    def __init__(self, function: Callable[[list[Message]], str], name: str) -> None:
        self.function, self.name = function, name
        self._conversations: dict[int, list[Message]] = {}  # by slot

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Reply to every request, in order."""
        return [Reply(self._answer(turn)) for turn in turns]

    def _answer(self, turn: PolicyRequest) -> str:
        conversation = self._conversations.get(turn.slot)
        if not turn.continues or conversation is None:
            system = turn.chat.system_prompt
            conversation = [{"role": "system", "content": system}] if system else []
            self._conversations[turn.slot] = conversation
        conversation.append({"role": "user", "content": turn.message})
        text = self.function([dict(message) for message in conversation])  # a copy: the function may change it
        if isinstance(text, str):
            conversation.append({"role": "assistant", "content": text})
        return text


class UserPolicy:
    """Checks a user's policy: an exception, or a reply of another type, becomes one line.

    Args:
        policy: `reply(requests)` returns a `Reply` or a text for each request, in order.
        name: in reports.
        file: its source file, whose line is named in errors; None if unknown.
    """

    def __init__(self, policy: Any, name: str, file: str | None = None) -> None:
        self.policy, self.name, self._file = policy, name, file
        if hasattr(policy, "default_max_new_tokens"):
            self.default_max_new_tokens = policy.default_max_new_tokens

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Reply to every request.

        Raises:
            PolicyFault: the policy raised an exception, or did not return one reply for each request.
            UsageError: raised by the policy itself.
        """
        try:
            replies = self.policy.reply(turns)
        except (UsageError, PolicyFault):
            raise
        except Exception as error:
            raise PolicyFault(f"policy {self.name!r} failed: {format_error(error, self._file)}") from error
        if not isinstance(replies, (list, tuple)):
            raise self._wrong(f"reply(turns) returned a value of type {type(replies).__name__}, not a list of replies")
        if len(replies) != len(turns):
            raise self._wrong(f"reply(turns) returned {len(replies)} replies to {len(turns)} turns")
        return [self._checked(reply) for reply in replies]

    def max_parallel(self, context_tokens: int) -> int:
        """Return the limit of the user's policy, if it has one."""
        return max_parallel_episodes(self.policy, context_tokens)

    def _checked(self, reply: Any) -> Reply:
        if not isinstance(reply, Reply):
            reply = Reply(reply)
        if not isinstance(reply.text, str):
            raise self._wrong(f"it replied with a value of type {type(reply.text).__name__}, not with text")
        return reply

    def _wrong(self, what: str) -> PolicyFault:
        where = f" ({Path(self._file).name})" if self._file else ""
        return PolicyFault(f"policy {self.name!r}{where}: {what}")


def _instantiate(factory: Callable[[], Any], name: str, file: str | None) -> Any:
    try:
        return factory()
    except (UsageError, PolicyFault):
        raise
    except Exception as error:
        raise UsageError(f"policy {name!r} cannot be made without arguments: {format_error(error, file)}") from error


def _takes_no_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError):
        return False
    return True


def _file(policy: Any) -> str | None:
    target = policy if inspect.isclass(policy) or inspect.isroutine(policy) else type(policy)
    try:
        return inspect.getsourcefile(target)
    except TypeError:
        return None
