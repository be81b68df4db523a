"""Studies: sources × arms × seeds on the same test tasks, as stages that are done once."""

from gentax.studies.plan import Study, read_study
from gentax.studies.run import run_study

__all__ = ["Study", "read_study", "run_study"]
