"""How different domains are from one another, and how varied a mixture of them is.

Every measure is absolute: it says the same of two domains whichever others stand in the list. 0 is alike.
"""

from gentax.metrics.diversity.matrix import MEASURES, Diversity, diversity, half_width
from gentax.metrics.diversity.mixture import rao, vendi

__all__ = ["MEASURES", "Diversity", "diversity", "half_width", "rao", "vendi"]
