"""Fast sampling from causal models: knows token ids, rows and caches, and nothing of text.

`select_decoder` chooses, by comparing log-probabilities with the model's own forward pass when a model is loaded:

- `lean`: Llama-like models in arithmetic of our own. A row's cache is kept from one call to the next, so that only
  what is new in its prompt is computed; what prompts begin with (the rules, a group's task, a whole prompt) is computed
  once for all of them; new tokens are packed, without padding, through everything but attention; finished rows leave
  the batch; projections of one input are one product. On a CUDA device a step of one token is a recorded graph.
- `general`: any model whose cache is made of attention layers, with or without windows, and recurrent layers, through
  its own forward pass and with the same savings.
- `whole`: anything else; no cache.

`vllm` plays through vLLM in this process, where that is asked for. Left out: one model over several devices.
"""

from gentax.models.decoding.hf_decoder import HFDecoder
from gentax.models.decoding.llama_decoder import LLAMA_LIKE, LlamaDecoder
from gentax.models.decoding.select import Decoder, select_decoder

__all__ = ["LLAMA_LIKE", "Decoder", "HFDecoder", "LlamaDecoder", "select_decoder"]
