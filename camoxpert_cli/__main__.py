"""`python -m camoxpert_cli` is `camox`."""

from camoxpert_cli.app import main

main()
