"""Small tokenizers of the kinds that models come with, and chat templates in the style of their families."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = [
    "Say the word you see. The word is red. green blue gold",
    "Yes. No. Step 3: you are in the kitchen.\nPossible: go left | open the door",
    "system user assistant model Answer <action>your action</action> <think>your thoughts</think>",
    'def act(action: str): {"name": "act", "arguments": {"action": "go left"}}',
] * 8
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set head = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set head = '' %}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{ head if loop.first else '' }}{{ m['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
VICUNA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}USER: {{ m['content'] }} "
    "{% elif m['role'] == 'assistant' %}ASSISTANT: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama2": LLAMA2, "gemma": GEMMA, "phi3": PHI3, "vicuna": VICUNA}
SPECIAL = [
    "<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|user|>",
    "<|assistant|>", "<|end|>",
]  # fmt: skip
BYTES = [f"<0x{n:02X}>" for n in range(256)]


def byte_level() -> Tokenizer:
    """GPT-2, Qwen, Llama 3."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    return made


def _sentencepiece_bpe(normalizer: Any) -> Tokenizer:
    words = [" " + " ".join(line.split()) for line in TEXT] + ["\n"]
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # no token holds the end of a word and a space
    made.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *BYTES], show_progress=False)
    )
    state = made.get_vocab(), [tuple(m) for m in _merges(made)]
    made = Tokenizer(models.BPE(*state, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizer
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def _merges(made: Tokenizer) -> list[Any]:
    import json

    return [m if isinstance(m, list) else m.split(" ") for m in json.loads(made.to_str())["model"]["merges"]]


def llama2() -> Tokenizer:
    """Llama 2, Mistral 7B: a space before every text, and bytes for what is not known."""
    return _sentencepiece_bpe(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def gemma() -> Tokenizer:
    """Gemma: no space in front, and bytes for what is not known."""
    return _sentencepiece_bpe(normalizers.Replace(" ", "▁"))


def _unigram(scheme: str) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(TEXT, trainer)
    return made


def unigram_always() -> Tokenizer:
    """T5, XLM-R: a space before every piece of text, behind control tokens too."""
    return _unigram("always")


def unigram_first() -> Tokenizer:
    """A space before the beginning alone."""
    return _unigram("first")


def word_piece() -> Tokenizer:
    """BERT: lower case, words and punctuation, white space dropped."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    return made


KINDS = {
    "byte_level": byte_level,
    "llama2": llama2,
    "gemma": gemma,
    "unigram_always": unigram_always,
    "unigram_first": unigram_first,
    "word_piece": word_piece,
}


def tokenizer(kind: str, template: str | None, *, bos: bool = False, added: tuple[str, ...] = ()) -> Any:
    """Return a tokenizer of a kind with a chat template.

    Args:
        kind: of `KINDS`.
        template: of `TEMPLATES`, or the template itself.
        bos: whether the tokenizer puts <s> before a text by itself.
        added: tokens that are added and not special.
    """
    made = KINDS[kind]()
    # Phi-3's turn marks take the white space behind them along
    special = [AddedToken(text, special=True, normalized=False, rstrip=text == "<|end|>") for text in SPECIAL]
    made.add_special_tokens(special)
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[4:],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATES.get(template, template) if template else None
    return fast


__all__ = ["KINDS", "SPECIAL", "TEMPLATES", "tokenizer"]
