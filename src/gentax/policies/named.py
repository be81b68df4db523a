"""A policy by its name: `random`, `expert`, a model, the URL of a server, or `module:attribute`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.errors import nearest
from gentax.core.user_code import is_user_name
from gentax.models.requests import ModelOptions
from gentax.models.source import names_a_model
from gentax.policies.protocol import Policy
from gentax.policies.simple import ExpertPolicy, RandomPolicy
from gentax.policies.user import load_user_policy, user_policy

SIMPLE = {"random": RandomPolicy, "expert": ExpertPolicy}
_BARE = re.compile(r"[\w.-]+:\d+(/.*|#.*|)")  # host:port, as one types it in a hurry


def policy_of(what: str | Path | Policy | Callable[..., Any], options: ModelOptions = ModelOptions()) -> Policy:
    """Return a policy: one that is given, "random", "expert", "base", a local model or one behind a URL.

    A local model is a folder, a name on the hub (`org/name[@revision]`), a PEFT adapter or a `.gguf` file; `options`
    say how its weights are loaded (see `models.source`). `module:attribute` is a policy of the user's own, and so is a
    function that is given (see `policies.user`). A URL is that of an OpenAI-compatible server, such as
    `http://localhost:8000/v1#model` (see `policies.endpoint`).

    Raises:
        UsageError: no such policy, folder, model or module.
        PolicyFault: a server that cannot be reached or refuses the key.
    """
    if not isinstance(what, (str, Path)):
        return what if hasattr(what, "reply") and not isinstance(what, type) else user_policy(what)
    if str(what) in SIMPLE:
        return SIMPLE[str(what)]()
    if isinstance(what, str) and "://" in what:
        from gentax.policies.endpoint import connect

        return connect(what)
    if not Path(what).exists() and is_user_name(str(what)):
        return load_user_policy(str(what), [*SIMPLE, "base"])
    if not names_a_model(what):
        if _BARE.fullmatch(str(what)):
            raise UsageError(f"no model folder {str(what)!r}; if it is a server, did you mean 'http://{what}'?")
        if (close := nearest(what, [*SIMPLE, "base"])) in SIMPLE:
            raise UsageError(f"no policy or model folder {str(what)!r}; did you mean {close!r}?")
    from gentax.policies.local import load  # PyTorch is only loaded when a model is

    return load(what, options)


def policy_pair(
    base: str | Path | Policy | Callable[..., Any],
    tuned: str | Path | Policy | Callable[..., Any],
    options: ModelOptions = ModelOptions(),
) -> tuple[Policy, Policy]:
    """Return two policies that are loaded together, as `policy_of` does; vLLM shares its memory between them."""
    each = replace(options, vllm_memory=options.vllm_memory / 2)
    return policy_of(base, each), policy_of(tuned, each)
