"""Other people's tools: model cards, logs and trackers."""
