"""TextWorldExpress: household text games, played through the `textworld-express` package. Two of its eight games."""
