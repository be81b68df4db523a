"""Learning from episodes."""
