"""How many tokens a model can read."""

from __future__ import annotations

from typing import Any

UNBOUNDED = 8192  # for models without positions of their own: recurrent ones, and those with ALiBi


def positions_of(config: Any) -> int:
    """Return how many tokens a sequence may have.

    Models with long RoPE are used up to their original context: what was computed before does not hold beyond it (see
    `original_context`).
    """
    text = config.get_text_config(decoder=True)
    most = next(
        (n for name in ("max_position_embeddings", "n_positions") if (n := getattr(text, name, None))), UNBOUNDED
    )
    return min(most, original_context(config) or most)


def original_context(config: Any) -> int | None:
    """Return the length beyond which a model turns to other frequencies for all positions (long RoPE); None for one
    that never does."""
    text = config.get_text_config(decoder=True)
    own = getattr(text, "original_max_position_embeddings", None)
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    lengths = [
        rope.get("original_max_position_embeddings") or own
        for rope in _ropes(given)
        if rope.get("rope_type") == "longrope"
    ]
    return min(filter(None, lengths), default=None)


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """Return the settings of all rotary embeddings: some models have one for each type of layer."""
    if not isinstance(parameters, dict):
        return []
    return [parameters, *(inner for inner in parameters.values() if isinstance(inner, dict))]
