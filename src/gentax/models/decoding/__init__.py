"""Fast sampling from a Llama-like decoder: knows token ids, rows and a key-value cache, and nothing of text.

What makes it fast on a small model and a CPU, each against calling the stock `generate` on every step's prompt:
a row's cache is kept from one call to the next, so that only what is new in its prompt is computed; what several
prompts begin with (the rules, a group's task, a whole prompt) is computed once for all of them; new tokens are packed,
without padding, through everything but attention; finished rows leave the batch; projections of one input are one
product. On a CUDA device a step of one token is a recorded graph.

`plan` says what to compute, `cache` keeps it, `weights` is the model, `graph` records, `draw` chooses tokens, and
`decoder` puts them together. Left out: sliding windows, mixtures of experts, several devices. Models it does not know
fall to `generate`.
"""

from gentax.models.decoding.lean import SUPPORTED, Decoder

__all__ = ["SUPPORTED", "Decoder"]
