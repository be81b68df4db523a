"""How varied a mixture of domains is, in one number.

Two that complement each other: Rao's is the difference to expect between two tasks drawn from the mixture, the Vendi
score says to how many wholly different domains the mixture comes to.
"""

from __future__ import annotations

import numpy as np

from gentax.core import UsageError


def rao(distance_DD: np.ndarray, weights_D: np.ndarray) -> float:
    """Return Rao's (1982) quadratic entropy Σ wᵢ wⱼ dᵢⱼ: the mean distance of two draws from the mixture.

    Args:
        distance_DD: distances of the domains, 0 on the diagonal.
        weights_D: shares of the domains, in any unit.

    Raises:
        UsageError: weights that do not fit the domains, are negative or are all 0.
    """
    share_D = _shares(weights_D, distance_DD)
    return float(share_D @ distance_DD @ share_D)


def vendi(similarity_DD: np.ndarray, weights_D: np.ndarray) -> float:
    """Return the Vendi score, the effective number of domains: 1 when all are alike, D when none resembles another.

    exp of the Shannon entropy of the eigenvalues of √w K √w (Friedman & Dieng 2023, arXiv 2210.02410, the form that is
    weighted by probabilities). K must be positive semidefinite, as Jaccard similarity is.

    Args:
        similarity_DD: similarities of the domains, 1 on the diagonal, symmetric.
        weights_D: shares of the domains, in any unit.

    Raises:
        UsageError: as `rao`.
    """
    root_D = np.sqrt(_shares(weights_D, similarity_DD))
    values_D = np.linalg.eigvalsh(root_D[:, None] * similarity_DD * root_D)
    values_D = values_D[values_D > 1e-12]
    return float(np.exp(-(values_D * np.log(values_D)).sum()))


def _shares(weights_D: np.ndarray, matrix_DD: np.ndarray) -> np.ndarray:
    weights_D = np.asarray(weights_D, float)
    if matrix_DD.shape != (len(weights_D), len(weights_D)):
        raise UsageError(f"{len(weights_D)} weights do not fit a matrix of shape {matrix_DD.shape}")
    if not np.isfinite(weights_D).all() or (weights_D < 0).any() or not weights_D.sum() > 0:
        raise UsageError("the weights of a mixture must be at least 0, and one of them more")
    return weights_D / weights_D.sum()
