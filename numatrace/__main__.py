"""`python -m numatrace` is the command."""

from numatrace.cli.main import main

main()
