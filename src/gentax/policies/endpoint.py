"""A policy behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, commercial services.

A request carries the conversation, the sampling settings, a seed from the episode's generator, the stop string
`</action>`, and neutral values for what a server's own defaults would change (llama-cpp-python: top_k 40, min_p 0.05,
repeat_penalty 1.1; vLLM and SGLang: the model's `generation_config.json`). docs/how-to/server.md lists them all.

A setting that a server refuses is dropped from then on, with one warning, unless the user has set it. The first request
is sent alone, to learn what the server refuses. Too long a context is shortened (see `shorten_messages`). Not
supported: log-probabilities and tokens, so nothing can be trained on an endpoint's episodes.

Once the server has answered, a request that fails for good costs its own episode, which ends as an error; the others
go on. `FAILURES_IN_A_ROW` of them, or a key or a model that is refused, end the run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gentax.core import PolicyFault, UsageError, unknown
from gentax.models.action_format import ACTION_END, TOOL, parse_reply
from gentax.models.options import MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING, ChatOptions, ModelOptions
from gentax.policies.chat_client import API_KEY_VARIABLE, ChatClient, EndpointError, SpendLimitReached, Usage
from gentax.policies.completion import clean, parse_completion, tool_call_message
from gentax.policies.protocol import PolicyRequest, Reply

NEUTRAL_SAMPLING: dict[str, float] = {  # values without effect, of settings with server defaults
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
OPTIONAL_SETTINGS = ("chat_template_kwargs", "max_tokens", "seed", "skip_special_tokens", "stop", *NEUTRAL_SAMPLING)
CHAT_SETTINGS = ("tools", "chat_template_kwargs")  # that the completions API does not have
EMPTY_REPLY = "(no answer)"  # stands for an empty reply in a conversation, which many servers refuse
MIN_MESSAGE_CHARS = 200  # characters of a message that is not cut further
MODELS_SHOWN = 12
FAILURES_IN_A_ROW = 16  # requests that fail for good, without one that succeeds between them, before the run ends
REFUSED_PROMPT = (400, 413, 422)  # statuses that are a word on the request itself
REFUSED_FOR_ALL = (401, 403, 404)  # on the key or the model
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|too long|longer than|reduce the length|exceed.{0,40}(context|token)"
    r"|tokens.{0,60}must be <=|at least 1, got -",
    re.IGNORECASE,
)
Message = dict[str, Any]


def connect_endpoint(where: str, options: ModelOptions = ModelOptions()) -> EndpointPolicy:
    """Return the policy at `where`: a base URL, with `#model` where the server has several models.

    The server's models are listed at once, so that a wrong address or key is found before anything is played. A server
    without such a list is trusted when the model is named.

    Raises:
        UsageError: no URL, or a server without exactly one model where none is named.
        PolicyFault: no server there, or it refuses the key.
    """
    url, model, chat = parse_endpoint_url(where)
    server = ChatClient(url, options, chat=chat)
    try:
        (models,) = server.gather([server.models()])
    except EndpointError as refused:
        if not model or refused.status in (0, 401):
            raise
        return EndpointPolicy(server, model)
    if not model:
        if not models:
            raise UsageError(f"{server.url} lists no model; name it as {server.url}#MODEL")
        if len(models) > 1:
            shown = ", ".join(sorted(models)[:MODELS_SHOWN])
            more = f" and {len(models) - MODELS_SHOWN} more" if len(models) > MODELS_SHOWN else ""
            raise UsageError(
                f"{server.url} has {len(models)} models; name one as {server.url}#MODEL. It has: {shown}{more}"
            )
        (model,) = models
    return EndpointPolicy(server, model)


class EndpointAddress(NamedTuple):
    """Where a policy is asked."""

    url: str  # the base URL
    model: str  # "" when none is named
    chat: bool = True  # whether the chat API is asked; else the completions API


def parse_endpoint_url(where: str) -> EndpointAddress:
    """Read `http://host:8000/v1#model`, or `…/v1/completions#model` for a model without a chat template.

    `/v1` is added to an address without a path. Raises UsageError where `where` is no URL of a server, or holds a
    password, which would come to stand in logs.
    """
    base, _, model = where.strip().partition("#")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in base):
        raise UsageError(
            f"{hide_password(where)!r} is no URL of a server; one looks like http://localhost:8000/v1#model"
        )
    if "@" in parts.netloc:
        raise UsageError(f"{hide_password(where)!r} holds a name or a password: give a key in {API_KEY_VARIABLE}")
    path = parts.path.rstrip("/")
    chat = path.endswith("/chat/completions") or not path.endswith("/completions")
    path = path.removesuffix("/chat/completions" if chat else "/completions") or "/v1"
    return EndpointAddress(parts._replace(path=path).geturl(), model, chat)


class EndpointPolicy:
    """Plays through a server; all requests of one call are concurrent.

    Args:
        server: the client.
        model: the server's name of it.
    """

    def __init__(self, server: ChatClient, model: str) -> None:
        self.server, self.model, self.name = server, model, model
        self._conversations: dict[int, list[Message]] = {}  # slot -> its conversation
        self._without: set[str] = set()  # settings that this server does not support
        self._no_top_k = 0  # this server's value for none
        self._has_answered = False
        self._failures = 0  # requests in a row that failed for good

    @property
    def usage(self) -> Usage:
        """What the server was asked so far, and what it cost."""
        return self.server.usage

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Reply to every request.

        Raises:
            PolicyFault: the server cannot be reached or refuses, after all retries, before it has ever answered;
                later, when that happens too often.
            UsageError: it does not have the model.
        """
        if not self.server.chat and any(turn.chat.action_format == "tool_calls" for turn in turns):
            raise UsageError(f"{self.server.url}/completions takes no tools: ask its chat API, or in another format")
        requests = [(self._conversation(turn), turn, int(turn.rng.integers(2**31 - 1))) for turn in turns]
        replies: list[Reply] = []
        while not self._has_answered and len(replies) < len(requests):  # one at a time
            replies += self.server.gather([self._reply(*requests[len(replies)])])
        if requests and not self._has_answered:
            raise PolicyFault(replies[-1].error)
        return replies + self.server.gather([self._reply(*request) for request in requests[len(replies) :]])

    async def _reply(self, messages: list[Message], turn: PolicyRequest, seed: int) -> Reply:
        """Ask, and turn a failure that concerns this request alone into a reply that is an error."""
        try:
            reply = await self._answer(messages, turn, seed)
        except SpendLimitReached as reached:
            self._has_answered = True  # nothing is learned by asking the others one at a time
            return Reply("", error=str(reached))
        except EndpointError as refused:
            fatal = refused.status in REFUSED_FOR_ALL or not (self._has_answered or refused.status in REFUSED_PROMPT)
            if fatal:
                raise
            self._failures += 1
            if self._failures >= FAILURES_IN_A_ROW:
                raise PolicyFault(f"{refused} ({self._failures} requests in a row failed)") from refused
            return Reply("", error=str(refused))
        self._has_answered, self._failures = True, 0
        return reply

    def _conversation(self, turn: PolicyRequest) -> list[Message]:
        messages = self._conversations.get(turn.slot)
        if not turn.continues or messages is None:
            system = turn.chat.system_prompt
            messages = self._conversations[turn.slot] = [{"role": "system", "content": clean(system)}] if system else []
        calls = messages[-1].get("tool_calls") if messages else None
        role = {"role": "tool", "tool_call_id": calls[0]["id"]} if calls else {"role": "user"}
        messages.append({**role, "content": clean(turn.message)})
        return messages

    def default_max_new_tokens(self, chat: ChatOptions) -> int:
        """Return the default length of a reply."""
        return MAX_NEW_TOKENS_THINKING if chat.thinking else MAX_NEW_TOKENS

    async def _answer(self, messages: list[Message], turn: PolicyRequest, seed: int) -> Reply:
        contents = [message["content"] for message in messages]
        while True:
            settings = self._settings(turn, seed)
            try:
                body = await self.server.complete(self.model, messages, settings)
            except EndpointError as refused:
                if self._adapt_to_refusal(refused, settings, messages):
                    continue
                raise await self._explain_refusal(refused) from refused
            answer = parse_completion(body, "stop" in settings, turn.chat.action_format)
            if answer.cut_off:
                self._without.add("stop")
                continue
            dropped = (len(contents) - len(messages)) // 2
            cut = any(message["content"] not in contents for message in messages)
            if answer.call_id:
                action = parse_reply(answer.text, turn.chat.action_format).action
                messages.append(tool_call_message(answer.text, action, answer.call_id))
            else:
                messages.append({"role": "assistant", "content": answer.text or EMPTY_REPLY})
            return Reply(answer.text, answer.written, truncated=answer.truncated, prompt_cut=cut, dropped=dropped)

    def _settings(self, turn: PolicyRequest, seed: int) -> dict[str, Any]:
        sampling = turn.sampling
        settings = {
            "temperature": sampling.temperature,
            **NEUTRAL_SAMPLING,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or self._no_top_k,
            "min_p": sampling.min_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed,
            "stop": [ACTION_END],
            "skip_special_tokens": False,
            "chat_template_kwargs": {"enable_thinking": turn.chat.thinking},
        }
        if turn.chat.action_format != "tags":
            del settings["stop"]
        if turn.chat.action_format == "tool_calls":
            settings["tools"] = [TOOL]
        if not self.server.chat:
            settings = {name: value for name, value in settings.items() if name not in CHAT_SETTINGS}
        if "max_tokens" in self._without:
            settings["max_completion_tokens"] = sampling.max_new_tokens
        return {name: value for name, value in settings.items() if name not in self._without}

    def _adapt_to_refusal(self, refused: EndpointError, settings: dict[str, Any], messages: list[Message]) -> bool:
        """Adapt to a refusal by dropping a setting or shortening; return whether to try again."""
        if refused.status == 413 and shorten_messages(messages):
            return True
        if refused.status not in (400, 422, 500):  # others, such as a rate limit, are no word on the request itself
            return False
        if _TOO_LONG.search(refused.message) and shorten_messages(messages):
            return True
        if refused.status == 500:
            return False
        blamed = [n for n in OPTIONAL_SETTINGS if refused.param == n or re.search(rf"\b{n}\b", refused.message)]
        again = any(name in settings for name in blamed)
        if settings.get("top_k") == 0 and "top_k" in blamed:
            self._no_top_k = -1  # SGLang's way
            blamed.remove("top_k")
        for name in blamed:
            if name in NEUTRAL_SAMPLING and not _is_neutral(name, settings.get(name, NEUTRAL_SAMPLING[name])):
                raise UsageError(f"{self.server.url} takes no {name}, and {settings[name]:g} was asked for")
        # Another turn may have met the same refusal while this one was under way.
        if new := sorted({*blamed} - self._without):
            effect = "played without; the server's own defaults hold, if it has any"
            warnings.warn(f"{self.server.url} takes no {', '.join(new)}: {effect}", stacklevel=2)
        self._without.update(blamed)
        return again

    async def _explain_refusal(self, refused: EndpointError) -> Exception:
        """Return the error to raise: the server's models, where it does not have this one."""
        if refused.status in (400, 404):
            try:
                models = await self.server.models()
            except EndpointError:
                return refused
            if models and self.model not in models:
                return unknown(f"model of {self.server.url}", self.model, models)
        return refused


def hide_password(url: str) -> str:
    """Return a URL, or what was meant as one, without the name and the password in it."""
    return re.sub(r"//.*@", "//", url)


def _is_neutral(name: str, value: float) -> bool:
    return value == NEUTRAL_SAMPLING[name] or (name == "top_k" and value == -1)


def shorten_messages(messages: list[Message]) -> bool:
    """Shorten a conversation in place: the first message stays (two with a system prompt), and the latest ones.

    When one turn is left, the longest message loses its middle. Returns False when nothing is left to cut.
    """
    head = 1 + (messages[0]["role"] == "system")
    if len(messages) > head + 2:
        del messages[head : head + 2]
        return True
    longest = max(messages, key=lambda message: len(message["content"]))
    text = longest["content"]
    if len(text) < MIN_MESSAGE_CHARS:
        return False
    quarter = len(text) // 4
    longest["content"] = f"{text[:quarter]} … {text[-quarter:]}"
    return True
