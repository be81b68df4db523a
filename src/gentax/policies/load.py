"""A policy by its name: `random`, `expert`, a model, the URL of a server, or `module:attribute`.

Policies of the user's own: a function of the conversation, or anything with `reply`, named `module:attribute`.

The short form is a function. It gets the conversation of one episode in the form of chat APIs and returns the reply:

    def my_policy(messages: list[dict[str, str]]) -> str:
        return "<action>look</action>"

An object that can be called so is the same. The long form has `reply(turns)`, see `protocol.Policy`: it answers all
episodes in flight at once, and may look at the sampling settings and the episode's random numbers. Either may be
given as a class, which is made without arguments, or returned by a function that takes none.
Left out: token ids, so nothing can be trained on what such a policy has played, and asynchronous functions.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gentax.core import PolicyFault, UsageError
from gentax.core.errors import nearest
from gentax.core.user_code import format_error, is_import_path, load_attribute
from gentax.models.requests import ModelOptions
from gentax.models.source import may_name_model
from gentax.policies.protocol import Policy, PolicyRequest, Reply, max_parallel_episodes
from gentax.policies.scripted import ExpertPolicy, RandomPolicy

SIMPLE = {"random": RandomPolicy, "expert": ExpertPolicy}
_BARE = re.compile(r"[\w.-]+:\d+(/.*|#.*|)")  # host:port, as one types it in a hurry


def load_policy(what: str | Path | Policy | Callable[..., Any], options: ModelOptions = ModelOptions()) -> Policy:
    """Return a policy: one that is given, "random", "expert", "base", a local model or one behind a URL.

    A local model is a folder, a name on the hub (`org/name[@revision]`), a PEFT adapter or a `.gguf` file; `options`
    say how its weights are loaded (see `models.source`). `module:attribute` is a policy of the user's own, and so is a
    function that is given (see `policies.user`). A URL is that of an OpenAI-compatible server, such as
    `http://localhost:8000/v1#model` (see `policies.endpoint`).

    Raises:
        UsageError: no such policy, folder, model or module.
        PolicyFault: a server that cannot be reached or refuses the key.
    """
    if not isinstance(what, (str, Path)):
        return what if hasattr(what, "reply") and not isinstance(what, type) else wrap_user_policy(what)
    if str(what) in SIMPLE:
        return SIMPLE[str(what)]()
    if isinstance(what, str) and "://" in what:
        from gentax.policies.endpoint import connect_endpoint

        return connect_endpoint(what)
    if not Path(what).exists() and is_import_path(str(what)):
        return load_user_policy(str(what), [*SIMPLE, "base"])
    if not may_name_model(what):
        if _BARE.fullmatch(str(what)):
            raise UsageError(f"no model folder {str(what)!r}; if it is a server, did you mean 'http://{what}'?")
        if (close := nearest(what, [*SIMPLE, "base"])) in SIMPLE:
            raise UsageError(f"no policy or model folder {str(what)!r}; did you mean {close!r}?")
    from gentax.policies.local import load_local_policy  # PyTorch is only loaded when a model is

    return load_local_policy(what, options)


def load_policy_pair(
    base: str | Path | Policy | Callable[..., Any],
    tuned: str | Path | Policy | Callable[..., Any],
    options: ModelOptions = ModelOptions(),
) -> tuple[Policy, Policy]:
    """Return two policies that are loaded together, as `load_policy` does; vLLM shares its memory between them."""
    each = replace(options, vllm_memory=options.vllm_memory / 2)
    return load_policy(base, each), load_policy(tuned, each)


Message = dict[str, str]


def load_user_policy(name: str, others: Sequence[str] = ()) -> Policy:
    """Return the policy called `name`, of the form `module:attribute`.

    Args:
        name: where it is. The module is looked for in the working directory and among the installed packages.
        others: names of policies that may have been meant.

    Raises:
        UsageError: no such module or attribute, a module that fails, or what is there is no policy.
    """
    return wrap_user_policy(load_attribute("policy", name, others), name)


def wrap_user_policy(found: Any, name: str = "") -> Policy:
    """Return `found` as a policy: a policy, a class or factory of one, or a function of the conversation.

    Args:
        found: what the user gave.
        name: what reports call a policy that has no `name` of its own; the name of the function or class when "".

    Raises:
        UsageError: `found` is none of these, or its class or factory fails.
    """
    name = name or getattr(found, "__name__", type(found).__name__)
    file = _file(found)
    if inspect.isclass(found) or (callable(found) and not hasattr(found, "reply") and _arguments(found) == 0):
        found = _made(found, name, file)
    if inspect.isclass(found) or not (hasattr(found, "reply") or callable(found)):
        raise UsageError(
            f"policy {name!r} is of type {type(found).__name__}; it must be a function of the conversation, "
            "or have `reply(turns)`"
        )
    if not hasattr(found, "reply"):
        if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None)):  # noqa: B004, it is looked into and not called
            raise UsageError(f"policy {name!r} is asynchronous; it must be a plain function that returns its reply")
        found = FunctionPolicy(found, name)
    own = getattr(found, "name", None)
    return UserPolicy(found, own if isinstance(own, str) and own else name, file)


class FunctionPolicy:
    """Plays by asking a function, one episode after the other.

    Args:
        function: gets the conversation so far, messages with `role` ("user" or "assistant", and "system" where the run
            has a system prompt) and `content`, and returns the reply. With `context="window(k)"` each conversation is
            one user message.
        name: how reports call it.
    """

    def __init__(self, function: Callable[[list[Message]], str], name: str) -> None:
        self.function, self.name = function, name
        self._conversations: dict[int, list[Message]] = {}  # by slot

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Answer every turn, in order."""
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
    """Stands before a policy of the user's own: an error in it, or an answer of another type, is one line.

    Args:
        policy: has `reply(turns)`, which returns a `Reply` or a text for each turn, in order.
        name: how reports call it.
        file: the file it was written in, whose line is named when it fails; None where that is not known.
    """

    def __init__(self, policy: Any, name: str, file: str | None = None) -> None:
        self.policy, self.name, self._file = policy, name, file
        if hasattr(policy, "default_max_new_tokens"):
            self.default_max_new_tokens = policy.default_max_new_tokens

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Answer every turn.

        Raises:
            PolicyFault: the policy raised an exception, or did not return one reply for each turn.
            UsageError: what the policy itself raises so.
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
        """Return what the user's policy says, where it says anything."""
        return max_parallel_episodes(self.policy, context_tokens)

    def _checked(self, reply: Any) -> Reply:
        made = reply if isinstance(reply, Reply) else Reply(reply)
        if not isinstance(made.text, str):
            raise self._wrong(f"it replied with a value of type {type(made.text).__name__}, not with text")
        return made

    def _wrong(self, what: str) -> PolicyFault:
        where = f" ({Path(self._file).name})" if self._file else ""
        return PolicyFault(f"policy {self.name!r}{where}: {what}")


def _made(factory: Callable[[], Any], name: str, file: str | None) -> Any:
    """Call a class or a factory without arguments."""
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"policy {name!r} is made without arguments, but: {error}") from None
    except ValueError:
        pass  # a class without a signature, such as one written in C
    try:
        return factory()
    except (UsageError, PolicyFault):
        raise
    except Exception as error:
        raise UsageError(f"policy {name!r} cannot be made: {format_error(error, file)}") from error


def _arguments(function: Callable[..., Any]) -> int:
    """Return how many arguments a function must be given; 1 where that is not known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 1
    return sum(p.kind in positional and p.default is inspect.Parameter.empty for p in parameters)


def _file(found: Any) -> str | None:
    target = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    try:
        return inspect.getsourcefile(target)
    except TypeError:
        return None
