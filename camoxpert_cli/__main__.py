"""Run `camox` as `python -m camoxpert_cli`."""

from camoxpert_cli.app import main

main()
