"""`python -m iekd` is `iekd`."""

from iekd.cli.main import app

app(prog_name="iekd")
