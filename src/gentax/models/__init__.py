"""Everything that runs a network: loading, chat templates, decoding, scoring, KL and precision."""
