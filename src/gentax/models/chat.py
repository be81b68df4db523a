"""Tokenize conversations: what a model reads is what its chat template and tokenizer make of the messages.

A conversation is tokenized as it grows and never again, so the ids a model sampled are those it sees later and is
trained on. Template and new message are tokenized together, since many tokenizers put a space before every text. The
ids equal those of `tokenizer.apply_chat_template`, unless a message contains the text of a control token: it is then
split, so that no outside text becomes a control token.

Where the template drops the thoughts of earlier answers, or writes an empty one, this keeps what was sampled: a
conversation only grows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from gentax.core import UsageError
from gentax.models.action_format import (
    ACTION,
    ACTION_END,
    THINK,
    THINK_END,
    ParsedReply,
    in_open_thought,
    parse_json,
    parse_reply,
    parse_tool_calls,
    split_thought,
    write_reply,
)
from gentax.models.options import ChatOptions
from gentax.models.templates import ChatLayout, TemplatePart, plain_layout, read_chat_template

TAGS = (THINK, THINK_END, ACTION, ACTION_END)
_ANCHORS = ("\n", "a", ".")  # text put before another so that it is not tokenized as a start, and removed again
_NO_THOUGHT = re.compile(rf"\A\s*(?:{THINK})?\s*{THINK_END}\s*")
NO_IDS = np.zeros(0, np.int32)


class ChatCodec:
    """Tokenizes the turns of a conversation; formats and parses replies.

    Args:
        tokenizer: a Hugging Face tokenizer. Without a chat template, messages are separated by line breaks, and the
            tokenizer's own prefix (BOS) stands before the first.
        options: thinking, system prompt, action format.
        name: of the model, for errors.

    Raises:
        UsageError: see `templates.read_chat_template`.
    """

    def __init__(self, tokenizer: Any, options: ChatOptions = ChatOptions(), name: str = "the tokenizer") -> None:
        self.tokenizer, self.options = tokenizer, options
        source = _template(tokenizer, options.action_format == "tool_calls")
        if not isinstance(source, str):
            raise UsageError(f"the chat template of {name} is {str(source)[:80]!r}, which is no text")
        special = tuple(sorted((key, str(token)) for key, token in tokenizer.special_tokens_map.items()))
        self.layout: ChatLayout = (
            read_chat_template(source, special, options, name) if source else plain_layout(bool(options.system_prompt))
        )
        if not source and options.action_format == "tool_calls":
            raise UsageError(f"{name} has no chat template that offers tools; say --action-format tags or json")
        known = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
        # A tokenizer with these tags belongs to the shipped model, which was trained on parts tokenized separately.
        self.has_reply_tokens = all(tag in known for tag in TAGS)
        self._marks = {mark: known[mark] for mark in self._reply_markers() if mark in known}
        unknown = tokenizer.unk_token_id
        self._control = {
            text: id
            for id, token in tokenizer.added_tokens_decoder.items()
            for text in [token.content]
            if id != unknown
            and text.strip()
            and (token.special or text in self._marks or (text in source and not text[0].isalnum()))
        }
        self._control_ids = np.array(sorted(self._control.values()), np.int32)
        self._pattern = _any_of(self._control)
        self._reply_pattern = _any_of(self._marks)
        self._begin = NO_IDS if source else self._tokenizer_prefix()
        self._lead = "" if options.action_format == "tool_calls" else self.layout.lead
        self.turn_end_id, self._end_text = self._find_turn_end()
        # In the harmony format a message's end does not end the turn, and a turn ends differently than in the history.
        harmony = "<|channel|>" in source
        self.stop_id = None if harmony else self.turn_end_id
        self._closes = {known[mark] for mark in ("<|return|>", "<|call|>") if harmony and mark in known}
        # Where the closing tag is one token, as in the shipped model, a reply ends there.
        self.action_end_id = known[ACTION_END] if self.has_reply_tokens and options.action_format == "tags" else None
        self.encode_text = lru_cache(maxsize=65536)(self._text)
        self._framed = lru_cache(maxsize=8192)(self._frame)
        self._controls_of = lru_cache(self._own_controls)

    # Conversations.

    def first_prompt(self, message: str) -> np.ndarray:
        """Return the ids of a conversation that starts with `message`, up to where the model answers."""
        texts = (self.options.system_prompt, message) if self.options.system_prompt else (message,)
        return np.concatenate([self._begin, self._framed(self.layout.opening, texts, True)])

    def next_prompt(self, message: str, last: int, called: bool = False) -> np.ndarray:
        """Return the ids between an answer whose last id is `last` and the next one, with `message` in between.

        `called`: whether the answer called the tool, so that the message is its result.
        """
        frame = self.layout.following
        if called and self.layout.after_call is not None:
            frame = self.layout.after_call
        ids = self._framed(frame, (message,), False)
        at = self._first_control(ids, frame.literals[0])
        ended = at is not None and (ids[at] == last or last in self._closes)  # the model ended its turn itself
        return ids[at + 1 :] if at is not None and ended else ids

    def template_overhead(self, first: bool) -> tuple[int, int]:
        """Return how many ids stand before and after a message, the first of a conversation or a later one."""
        frame = self.layout.opening if first else self.layout.following
        texts = (self.options.system_prompt,) if first and self.options.system_prompt else ()
        before = sum(len(self._encode_after(text)) for text in (*frame.literals[:-1], *texts))
        return len(self._begin) + before + 1, len(self._encode_after(frame.literals[-1])) + 1

    # Replies.

    def format_reply(self, action: str, thought: str | None = None) -> str:
        """Format a reply in the action format, as the model is to write it after its prompt."""
        if self.options.action_format == "tool_calls":
            text = self._call(action)
            if thought is not None or self.layout.opens_thought:
                text = _NO_THOUGHT.sub("", text)  # the empty thought that some templates write before a call
            if thought is not None:
                text = f"{THINK}\n{thought}\n{THINK_END}\n\n{text}"
        else:
            text = write_reply(action, thought, self.options.action_format)
        if not self.layout.opens_thought:
            return text
        return text.removeprefix(THINK).lstrip("\n") if text.startswith(THINK) else f"{THINK_END}\n\n{text}"

    def parse_reply(self, text: str) -> ParsedReply:
        """Parse the action of a reply, "" when there is none, and its thought."""
        if self.layout.opens_thought and not text.lstrip().startswith(THINK):
            text = THINK + text
        if self.options.action_format == "tool_calls" and self.layout.family is not None:
            return parse_tool_calls(text, self.layout.family)
        if self.options.action_format == "tags" and not self.has_reply_tokens:
            thought, rest = split_thought(text)  # an action that is quoted in a thought is none
            return ParsedReply(parse_reply(rest).action, thought)
        return parse_reply(text, self.options.action_format)

    def calls_tool(self, text: str) -> bool:
        """Return whether a reply called the tool, so that the next message is the call's result."""
        return self.layout.after_call is not None and bool(self.parse_reply(text).action)

    def is_complete(self, text: str) -> bool:
        """Return whether a reply has a complete action, so that generation can stop."""
        if self.has_reply_tokens and self.options.action_format == "tags":
            return ACTION_END in text
        if in_open_thought(text, self.layout.opens_thought):
            return False  # a marker quoted in a thought ends nothing
        text = text.rpartition(THINK_END)[2]
        if self.options.action_format == "tags":
            return ACTION_END in text
        if self.options.action_format == "json":
            return bool(parse_json(text).action)
        assert self.layout.family is not None
        if self.layout.family.end not in text:
            return False
        return bool(parse_tool_calls(text, self.layout.family).action)

    @property
    def end_markers(self) -> tuple[str, ...]:
        """The markers one of which ends every complete reply: a quick test before `is_complete`."""
        if self.options.action_format == "tool_calls" and self.layout.family is not None:
            return (self.layout.family.end,)
        return (ACTION_END,) if self.options.action_format == "tags" else ("}",)

    def encode_reply(self, text: str) -> np.ndarray:
        """Tokenize a reply given as text. Only the markers of replies may become control tokens."""
        return self._encode_answer(text, "")

    def encode_turn(self, text: str) -> np.ndarray:
        """Tokenize a whole assistant turn: a reply and the token that ends it.

        A model trained on such turns learns to stop, with the token that the chat template writes there. (In rollouts
        it is stopped at its action, and `next_prompt` adds that token.) Where the template has none, a reply in tags
        ends with its last tag, any other with the EOS token.
        """
        if self.turn_end_id is None:
            eos = None if text.endswith(ACTION_END) else self.tokenizer.eos_token_id
            return self.encode_reply(text) if eos is None else np.append(self.encode_reply(text), np.int32(eos))
        if self.has_reply_tokens:
            return np.append(self.encode_reply(text), np.int32(self.turn_end_id))
        return self._encode_answer(text, self._end_text)

    def decode(self, ids: np.ndarray | list[int]) -> str:
        """Return the text of sampled ids, with tags and without end-of-turn tokens."""
        ids = np.asarray(ids)
        if self.turn_end_id is not None and len(ids) and ids[-1] == self.turn_end_id:
            ids = ids[:-1]
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        for mark in (self.tokenizer.eos_token, self.tokenizer.pad_token):
            if mark:
                text = text.replace(mark, "")
        return text

    # Tokenization.

    def _frame(self, frame: TemplatePart, texts: tuple[str, ...], first: bool) -> np.ndarray:
        """Tokenize a template part with its placeholders filled; `first`: at the start of a conversation."""
        filled = [hole.fill(_clean(text)) for hole, text in zip(frame.holes, texts, strict=True)]
        if self.has_reply_tokens:
            parts = [self._encode(frame.literals[0])]
            for text, literal in zip(filled, frame.literals[1:], strict=True):
                parts += [self._split(text), self._encode(literal)]
            return np.concatenate(parts)
        ids = self._joined(frame, filled, first)
        if np.array_equal(self._controls(ids), self._controls_of(frame, first)):
            return ids
        parts = [self._encode(frame.literals[0]) if first else self._encode_after(frame.literals[0])]
        for text, literal in zip(filled, frame.literals[1:], strict=True):
            parts += [*self._encode_split(text), self._encode_after(literal)]
        return np.concatenate(parts)

    def _joined(self, frame: TemplatePart, filled: list[str], first: bool) -> np.ndarray:
        whole = frame.literals[0] + "".join(a + b for a, b in zip(filled, frame.literals[1:], strict=True))
        return self._encode(whole) if first else self._encode_after(whole)

    def _own_controls(self, frame: TemplatePart, first: bool) -> np.ndarray:
        """Return the control tokens of a template part itself."""
        return self._controls(self._joined(frame, ["a"] * len(frame.holes), first))

    def _encode_answer(self, text: str, end: str) -> np.ndarray:
        """Tokenize an answer, and the text after it, as in a conversation."""
        text = _clean(text)
        pieces = self._reply_pattern.split(text) if self._marks else [text]  # text, mark, text, …
        if self.has_reply_tokens:
            return np.concatenate([self._encode(p) if p in self._marks else self._split(p) for p in pieces])
        header = self.layout.opening.literals[-1]
        before, ids = self._encode(header), self._encode(header + self._lead + text + end)
        wanted = [self._control[mark] for mark in self._pattern.findall(self._lead)]
        wanted += [self._marks[piece] for piece in pieces[1::2]]
        wanted += [self.turn_end_id] if end else []
        if np.array_equal(ids[: len(before)], before):
            ids = ids[len(before) :]
            if self._controls(ids).tolist() == wanted:
                return ids
        parts = [self._encode_after(self._lead)]
        for n, piece in enumerate(pieces):
            parts += [np.array([self._marks[piece]], np.int32)] if n % 2 else self._encode_split(piece)
        return np.concatenate([*parts, self._encode_after(end)])

    def _call(self, action: str) -> str:
        layout = self.layout
        assert layout.family is not None
        if layout.call is None:
            return layout.family.write(action)
        (before, after), (hole,) = layout.call.literals, layout.call.holes
        text = hole.fill(action)
        if before.endswith("'"):  # a Python string
            text = text.replace("\\", "\\\\").replace("'", "\\'")
        return before + text + after

    def _reply_markers(self) -> Iterator[str]:
        """Yield what may be a control token in a reply: the tags, and the parts of a tool call."""
        yield from TAGS
        if self.layout.family is not None:
            shape = self.layout.family.form if self.layout.call is None else "".join(self.layout.call.literals)
            for token in self.tokenizer.added_tokens_decoder.values():
                if token.content.strip() and token.content in shape:
                    yield token.content

    def _find_turn_end(self) -> tuple[int | None, str]:
        """Return the control token that ends an answer, if any, and the template text up to it."""
        literal = self.layout.following.literals[0]
        ids = self._encode(literal)
        at = self._first_control(ids, literal)
        if at is None:
            return None, ""
        token = next(text for text, id in self._control.items() if id == ids[at])
        return int(ids[at]), literal[: literal.index(token) + len(token)]

    def _first_control(self, ids: np.ndarray, literal: str) -> int | None:
        """Return the index of the control token that `literal` starts with, after spaces."""
        match = self._pattern.match(literal.lstrip())
        if match is None:
            return None
        at = np.flatnonzero(ids == self._control[match.group(0)])
        return int(at[0]) if len(at) else None

    def _controls(self, ids: np.ndarray) -> np.ndarray:
        return ids[np.isin(ids, self._control_ids)]

    def _text(self, text: str) -> np.ndarray:
        """Tokenize outside text alone."""
        text = _clean(text)
        return self._split(text) if self.has_reply_tokens else np.concatenate([NO_IDS, *self._encode_split(text)])

    def _encode_split(self, text: str) -> list[np.ndarray]:
        """Tokenize text within a conversation, split inside the text of each control token."""
        starts = [match.start() + 1 for match in self._pattern.finditer(text)] if self._control else []
        return [self._without_control(text[a:b]) for a, b in zip([0, *starts], [*starts, None], strict=True)]

    def _without_control(self, text: str) -> np.ndarray:
        ids = self._encode_after(text)
        if not len(self._controls(ids)):
            return ids
        # The tokenizer normalizes text before it finds control tokens. Letter by letter it finds none; one that is a
        # single letter is left out.
        ids = np.concatenate([NO_IDS, *map(self._encode_after, text)])
        return ids[~np.isin(ids, self._control_ids)]

    def _encode_after(self, text: str) -> np.ndarray:
        """Tokenize text that follows other text."""
        for anchor in _ANCHORS if text else ():
            before, ids = self._encode(anchor), self._encode(anchor + text)
            if len(ids) > len(before) and np.array_equal(ids[: len(before)], before):
                return ids[len(before) :]
        return self._encode(text)

    def _split(self, text: str) -> np.ndarray:
        return np.asarray(
            self.tokenizer(_clean(text), add_special_tokens=False, split_special_tokens=True)["input_ids"], np.int32
        )

    def _encode(self, text: str) -> np.ndarray:
        return np.asarray(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def _tokenizer_prefix(self) -> np.ndarray:
        """Return the tokenizer's own prefix."""
        plain, whole = self._encode("a"), np.asarray(self.tokenizer("a")["input_ids"], np.int32)
        for at in range(len(whole) - len(plain) + 1):
            if np.array_equal(whole[at : at + len(plain)], plain):
                return whole[:at]
        return NO_IDS


def _template(tokenizer: Any, tools: bool) -> str:
    """Return the tokenizer's chat template, or ""."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("tool_use" if tools else "default") or template.get("default") or ""
    return template or ""


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of some texts, the longest first."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are not UTF-8
