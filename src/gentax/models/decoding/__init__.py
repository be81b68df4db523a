"""Fast sampling from causal models, on token ids alone.

`select_decoder` compares log-probabilities with the model's own forward pass and takes the fastest that agrees:

- `LlamaDecoder`: own arithmetic for Llama-like models. A row's KV cache is kept between calls, shared prefixes are
  computed once, prefill is packed without padding, finished rows leave the batch, projections are fused. On a CUDA
  device a decoding step is a recorded graph.
- `HFDecoder`: the model's own forward pass over a cache of attention and recurrent layers, with the same savings.
- `UncachedDecoder`: any other model, without a cache.

`vllm` decodes through vLLM in this process. Not supported: one model over several devices.
"""

from gentax.models.decoding.hf_decoder import HFDecoder
from gentax.models.decoding.llama_decoder import LLAMA_LIKE, LlamaDecoder
from gentax.models.decoding.select import Decoder, select_decoder

__all__ = ["LLAMA_LIKE", "Decoder", "HFDecoder", "LlamaDecoder", "select_decoder"]
