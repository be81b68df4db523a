"""What plays in order to measure: an evaluation, two policies on the same tasks, probes, frozen suites."""
