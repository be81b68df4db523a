"""The name under which verifiers finds `gentax.integrations.verifiers_taskset`: it takes top-level modules only."""

from gentax.integrations.verifiers_taskset import ChatHarness, GentaxEnv, GentaxTaskset

__all__ = ["ChatHarness", "GentaxEnv", "GentaxTaskset"]
