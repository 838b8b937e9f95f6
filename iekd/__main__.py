"""`python -m iekd` is `iekd`."""

from iekd.cli import app

app(prog_name="iekd")
