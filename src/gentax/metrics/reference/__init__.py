"""Two papers' printed numbers, and what follows from them: `published` reads them, `recompute` checks what they derive.

The papers are arXiv 2601.18217 ("Paying Less Generalization Tax") and 2603.12011 ("Can RL Improve Generalization of
LLM Agents?"). Only facts are kept: cells, settings and figures, each with its table where it is known.
"""

from gentax.metrics.reference.claims import Status
from gentax.metrics.reference.published import STUDIES, Published, published, study_of
from gentax.metrics.reference.recompute import Recomputed, recompute

__all__ = ["STUDIES", "Published", "Recomputed", "Status", "published", "recompute", "study_of"]
