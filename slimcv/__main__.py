"""`python -m slimcv`: the same as the command `slimcv`."""

from slimcv.cli import main

main()
