"""`python -m fuseline`."""

from fuseline.cli import main

main()
