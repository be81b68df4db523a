"""From messages to token ids, through a tokenizer's own chat template, one piece at a time.

A conversation is tokenized as it grows and never again, so the ids a model sampled are the ids it is shown later and
trained on. Text that comes from outside is tokenized so that it cannot become a control token.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.models.action_format import ACTION, ACTION_END, THINK, THINK_END

_ASK, _ANSWER, _NEXT = "\u2042ask\u2042", "\u2042answer\u2042", "\u2042next\u2042"


class ChatCodec:
    """Tokenizes the turns of a conversation.

    Args:
        tokenizer: a Hugging Face tokenizer, with or without a chat template.

    Raises:
        UsageError: a chat template that does not print what it is given.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.chat_template:
            first = self._render([("user", _ASK)])
            second = self._render([("user", _ASK), ("assistant", _ANSWER), ("user", _NEXT)])
        else:
            first, second = f"{_ASK}\n", f"{_ASK}\n{_ANSWER}\n{_NEXT}\n"
        if first.count(_ASK) != 1 or _ANSWER not in second or _NEXT not in second.partition(_ANSWER)[2]:
            raise UsageError("the tokenizer's chat template does not print the messages it is given")
        before, _, after = first.partition(_ASK)
        between, _, again = second.partition(_ANSWER)[2].partition(_NEXT)
        self._open = (self._control(before), self._control(after))
        self._next = (self._control(between), self._control(again))
        self._end = self._turn_end()
        own = tokenizer.get_added_vocab()
        self._tags = [tag for tag in (THINK, THINK_END, ACTION, ACTION_END) if tag in own]
        self.text = lru_cache(maxsize=65536)(self._text)

    def opening(self, message: str) -> np.ndarray:
        """Return the ids of a conversation that starts with `message`, up to where the model answers."""
        return np.concatenate([self._open[0], self.text(message), self._open[1]])

    def following(self, message: str, last: int) -> np.ndarray:
        """Return the ids between an answer whose last id is `last` and the next one, with `message` in between."""
        between = self._next[0]
        if len(between) and between[0] == last:  # the model wrote the end of its turn itself
            between = between[1:]
        return np.concatenate([between, self.text(message), self._next[1]])

    def reply(self, text: str) -> np.ndarray:
        """Return the ids of a reply known as text. The grammar's tags may be control tokens, nothing else in it can."""
        if not self._tags:
            return self._text(text)
        parts = re.split(f"({'|'.join(map(re.escape, self._tags))})", text)
        return np.concatenate([self._control(part) if part in self._tags else self._text(part) for part in parts])

    def turn(self, text: str) -> np.ndarray:
        """Return the ids of a whole turn of the agent: a reply, and the token that ends it.

        A model that learns from turns learns to stop, wherever it is asked afterwards: with the token that the chat
        template writes there. (While it plays here it is stopped after `</action>`, and `following` writes that token
        before the next message.) Where the template has none, a reply in the grammar ends with its last tag, any other
        with the tokenizer's end of text.
        """
        ids = self.reply(text)
        end = self._end
        if end is None and not text.endswith(ACTION_END):
            end = self.tokenizer.eos_token_id
        return ids if end is None else np.append(ids, np.int32(end))

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """Return the text of sampled ids, tags included, end-of-turn marks not."""
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        for mark in (self.tokenizer.eos_token, self.tokenizer.pad_token):
            if mark:
                text = text.replace(mark, "")
        return text

    def _turn_end(self) -> int | None:
        """Return the control token that the template writes after an answer, if it does."""
        first = int(self._next[0][0]) if len(self._next[0]) else -1
        known = self.tokenizer.added_tokens_decoder.get(first)
        return first if first in self.tokenizer.all_special_ids or (known is not None and known.special) else None

    def _text(self, text: str) -> np.ndarray:
        clean = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are not UTF-8
        ids = self.tokenizer(clean, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return np.asarray(ids, np.int32)

    def _control(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _render(self, messages: list[tuple[str, str]]) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
