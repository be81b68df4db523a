"""Everything that runs a network: loading, chat templates, decoding, scoring, KL, precision, what is supported."""
