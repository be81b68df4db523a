"""How many tokens a model can read."""

from __future__ import annotations

from typing import Any

UNBOUNDED = 8192  # for models without positions of their own: recurrent ones, and those with ALiBi


def positions_of(config: Any) -> int:
    """Return how many tokens a sequence may have.

    Rotary embeddings of the types `dynamic` and `longrope` change all positions once a sequence is longer than the
    model's original context, so that nothing computed before holds. Such models are used up to that length.
    """
    text = config.get_text_config(decoder=True)
    most = next(
        (n for name in ("max_position_embeddings", "n_positions") if (n := getattr(text, name, None))), UNBOUNDED
    )
    for rope in _ropes(getattr(text, "rope_parameters", None)):
        if rope.get("rope_type") == "longrope":
            original = rope.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            most = min(most, original or most)
    return most


def _ropes(parameters: Any) -> list[dict[str, Any]]:
    """Return the settings of all rotary embeddings: some models have one for each type of layer."""
    if not isinstance(parameters, dict):
        return []
    return [parameters, *(inner for inner in parameters.values() if isinstance(inner, dict))]
