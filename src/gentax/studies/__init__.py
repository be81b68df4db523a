"""Studies: sources × arms × seeds on the same test tasks, in stages that are run once."""

from gentax.studies.run import StudyCallback, StudyRun, run_study
from gentax.studies.study import Study, read_study

__all__ = ["Study", "StudyCallback", "StudyRun", "read_study", "run_study"]
