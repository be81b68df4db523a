"""A policy behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, Ollama, commercial services.

What is sent for each turn is one `POST …/chat/completions`:

- `model`: what the URL names after `#`, or the only model the server has;
- `messages`: in an append-only context the whole conversation, user and assistant in turns, the thoughts included; in
  a window one user message; a system message before them where the run has one. What follows a call of the tool is its
  result, a message of the role `tool`;
- `tools`: with the action format `tool_calls`, the one tool there is. `stop` is not sent then, nor with `json`;
- `temperature`, `top_p`, `top_k`, `min_p` and `max_tokens`: the turn's;
- `typical_p` 1, `repetition_penalty` and `repeat_penalty` 1, `presence_penalty` and `frequency_penalty` 0: all that a
  server may have a default of, which would change what is sampled, and with penalties even the most likely token.
  llama-cpp-python has top_k 40, min_p 0.05 and repeat_penalty 1.1; vLLM and SGLang take what the model's
  `generation_config.json` says;
- `seed`: drawn from the episode's generator, one for each turn, so that two policies see the same where it is honoured;
- `stop`: `</action>`, where a reply ends. A server that answers with its model's thought apart (`reasoning_content`)
  and that has met the mark within the thought is asked again, and from then on, without;
- `skip_special_tokens` false, which vLLM and SGLang know: where a model's `<action>` is a control token, as it is in
  the model that ships with gentax, they would leave it out of the text, and no action could be read;
- `chat_template_kwargs` with `enable_thinking`, which vLLM, SGLang and llama.cpp hand to the model's chat template.

A server that says it does not take one of these is asked without it from then on, which is said once for each, and one
that does not take `max_tokens` by the newer name, `max_completion_tokens`. Some take -1 and not 0 for "no top_k". What
the user has set is never dropped, since it is part of what is measured: `temperature`, and `top_p`, `top_k` and `min_p`
where they are on. A server may also ignore what it does not know, without a word: Ollama's chat completions take
neither `top_k`, `min_p` nor a repetition penalty, so set these in its Modelfile. The first question is asked alone, so
that what a server refuses is known before many are under way.
A server that says the context is too long is asked with less of it (see `shorten_messages`).
Left out: log-probabilities and tokens, so nothing can be trained on what an endpoint has played.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from gentax.core import UsageError, unknown
from gentax.models.action_format import ACTION_END, TOOL, parse_reply
from gentax.models.requests import MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING, ChatOptions
from gentax.policies.chat_client import ChatClient, EndpointError, clean, parse_completion, tool_call_message
from gentax.policies.protocol import PolicyRequest, Reply

NEUTRAL_SAMPLING: dict[str, float] = {  # what changes nothing, of settings that a server may have a default of
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
EMPTY_REPLY = "(no answer)"  # stands in a conversation for an empty answer, which many servers will not be shown
MIN_MESSAGE_CHARS = 200  # characters of a message that is not cut any further
MODELS_SHOWN = 12
_TOO_LONG = re.compile(
    r"context.?(length|size|window)|too long|longer than|reduce the length|exceed.{0,40}(context|token)"
    r"|tokens.{0,60}must be <=|at least 1, got -",
    re.IGNORECASE,
)
Message = dict[str, Any]


def connect_endpoint(where: str) -> EndpointPolicy:
    """Return the policy at `where`: a base URL, with `#model` where the server has several models.

    The server is asked for its models at once, so that a wrong address or key is known before anything is played. A
    server that has no such list is believed when the model is named.

    Raises:
        UsageError: no such URL, or a server that has not exactly one model where none is named.
        PolicyFault: nothing answers there, or it refuses the key.
    """
    url, model = parse_endpoint_url(where)
    server = ChatClient(url)
    try:
        (models,) = server.together([server.models()])
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


def parse_endpoint_url(where: str) -> tuple[str, str]:
    """Return the base URL and the model ("" when none is named) of `http://host:8000/v1#model`.

    `/v1` is added to an address without a path. Raises UsageError where `where` is no address of a server.
    """
    base, _, model = where.strip().partition("#")
    try:
        parts = urlsplit(base)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in base):
        said = re.sub(r"(//)[^/@#]*@", r"\1", where)  # without a password
        raise UsageError(f"{said!r} is no URL of a server; one looks like http://localhost:8000/v1#model")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return parts._replace(path=path).geturl(), model


class EndpointPolicy:
    """Plays by asking a server; all turns of one call are asked at once.

    Args:
        server: where the model is.
        model: the server's name for it.
    """

    def __init__(self, server: ChatClient, model: str) -> None:
        self.server, self.model, self.name = server, model, model
        self._said: dict[int, list[Message]] = {}  # slot -> its conversation
        self._without: set[str] = set()  # settings that this server does not take
        self._no_top_k = 0  # what this server calls none
        self._met = False  # whether it has answered once

    def reply(self, turns: Sequence[PolicyRequest]) -> list[Reply]:
        """Answer every turn.

        Raises:
            PolicyFault: the server cannot be reached or refuses, after all retries.
            UsageError: it has no such model.
        """
        asked = [(self._conversation(turn), turn, int(turn.rng.integers(2**31 - 1))) for turn in turns]
        first = 0 if self._met else 1
        replies = self.server.together([self._answer(*one) for one in asked[:first]])
        self._met = True
        return replies + self.server.together([self._answer(*one) for one in asked[first:]])

    def _conversation(self, turn: PolicyRequest) -> list[Message]:
        said = self._said.get(turn.slot)
        if not turn.continues or said is None:
            system = turn.chat.system_prompt
            said = self._said[turn.slot] = [{"role": "system", "content": clean(system)}] if system else []
        calls = said[-1].get("tool_calls") if said else None
        role = {"role": "tool", "tool_call_id": calls[0]["id"]} if calls else {"role": "user"}
        said.append({**role, "content": clean(turn.message)})
        return said

    def default_max_new_tokens(self, chat: ChatOptions) -> int:
        """Return how many tokens a reply has where nobody says."""
        return MAX_NEW_TOKENS_THINKING if chat.thinking else MAX_NEW_TOKENS

    async def _answer(self, said: list[Message], turn: PolicyRequest, seed: int) -> Reply:
        held = [message["content"] for message in said]
        while True:
            settings = self._settings(turn, seed)
            try:
                body = await self.server.complete(self.model, said, settings)
            except EndpointError as refused:
                if self._relents(refused, settings, said):
                    continue
                raise await self._explained(refused) from refused
            answer = parse_completion(body, "stop" in settings, turn.chat.action_format)
            if answer.cut_off:
                self._without.add("stop")
                continue
            dropped = (len(held) - len(said)) // 2
            cut = any(message["content"] not in held for message in said)
            if answer.call_id:
                action = parse_reply(answer.text, turn.chat.action_format).action
                said.append(tool_call_message(answer.text, action, answer.call_id))
            else:
                said.append({"role": "assistant", "content": answer.text or EMPTY_REPLY})
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
        if "max_tokens" in self._without:
            settings["max_completion_tokens"] = sampling.max_new_tokens
        return {name: value for name, value in settings.items() if name not in self._without}

    def _relents(self, refused: EndpointError, settings: dict[str, Any], said: list[Message]) -> bool:
        """Ask for less where the server says what was too much; return whether it is worth another try."""
        if refused.status == 413 and shorten_messages(said):
            return True
        if refused.status not in (400, 422, 500):  # others, such as a rate limit, are no word on the request itself
            return False
        if _TOO_LONG.search(refused.said) and shorten_messages(said):
            return True
        if refused.status == 500:
            return False
        blamed = [n for n in OPTIONAL_SETTINGS if refused.param == n or re.search(rf"\b{n}\b", refused.said)]
        again = any(name in settings for name in blamed)
        if settings.get("top_k") == 0 and "top_k" in blamed:
            self._no_top_k = -1  # SGLang's way
            blamed.remove("top_k")
        for name in blamed:
            if name in NEUTRAL_SAMPLING and not _is_neutral(name, settings.get(name, NEUTRAL_SAMPLING[name])):
                raise UsageError(f"{self.server.url} takes no {name}, and {settings[name]:g} was asked for")
        # Another turn may have met the same refusal while this one was under way.
        if new := sorted({*blamed} - self._without):
            warnings.warn(f"{self.server.url} takes no {', '.join(new)}: {_consequence(new)}", stacklevel=2)
        self._without.update(blamed)
        return again

    async def _explained(self, refused: EndpointError) -> Exception:
        """Return the error to raise: the models there are, where the server does not have the one that is asked."""
        if refused.status in (400, 404):
            try:
                models = await self.server.models()
            except EndpointError:
                return refused
            if models and self.model not in models:
                return unknown(f"model of {self.server.url}", self.model, models)
        return refused


def _is_neutral(name: str, value: float) -> bool:
    return value == NEUTRAL_SAMPLING[name] or (name == "top_k" and value == -1)


def _consequence(dropped: list[str]) -> str:
    """Say what it means that a server does not take some settings."""
    said = ["played without"]
    if any(name in NEUTRAL_SAMPLING for name in dropped):
        said.append("the server's own defaults hold, if it has any")
    if "chat_template_kwargs" in dropped:
        said.append("whether the model thinks is up to the server")
    if "seed" in dropped:
        said.append("two policies do not draw the same random numbers there")
    return "; ".join(said)


def shorten_messages(said: list[Message]) -> bool:
    """Make a conversation shorter, in place: the first message stays (two with a system prompt), and the latest ones.

    When one exchange is left, the longest message loses its middle. Returns False when nothing is left to cut.
    """
    head = 1 + (said[0]["role"] == "system")
    if len(said) > head + 2:
        del said[head : head + 2]
        return True
    longest = max(said, key=lambda message: len(message["content"]))
    text = longest["content"]
    if len(text) < MIN_MESSAGE_CHARS:
        return False
    quarter = len(text) // 4
    longest["content"] = f"{text[:quarter]} … {text[-quarter:]}"
    return True
