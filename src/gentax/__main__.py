"""`python -m gentax`, for launchers such as torchrun and accelerate."""

from gentax.cli import main

main()
