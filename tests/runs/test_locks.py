"""Windows has no fcntl: whoever wants to run something there is told what to do, and losses still work."""

from __future__ import annotations

NO_FCNTL = "import sys; sys.modules['fcntl'] = None\n"


def test_runs_say_what_to_do_where_there_is_no_fcntl(fresh_python):
    code = """
from iekd.errors import UserError
try:
    import iekd.runs.store
except ImportError as error:
    assert isinstance(error, UserError)
    print(error)
"""
    said = fresh_python(NO_FCNTL + code)
    assert "WSL2" in said


def test_the_command_line_says_it_in_one_sentence(fresh_python):
    code = """
from typer.testing import CliRunner
from iekd.cli.main import app
result = CliRunner().invoke(app, ["runs", "list"])
print(result.exit_code, result.output)
"""
    said = fresh_python(NO_FCNTL + code)
    assert said.startswith("2 ")
    assert "WSL2" in said
    assert "Traceback" not in said


def test_losses_need_no_locks(fresh_python):
    assert fresh_python(NO_FCNTL + "import iekd.losses, iekd.models.registry, iekd.data; print('fine')") == "fine\n"
