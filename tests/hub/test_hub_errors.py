"""What goes wrong without an answer of the Hub: words for everything but our own mistakes."""

from __future__ import annotations

import errno

import pytest

from iekd.hub_errors import error_sentence


class XetError(PermissionError):
    """As hf_xet has them: kinds of OSError without a number."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["cannot be written on this machine", "No space left"]),
        (XetError("token has expired"), ["The Hub refused: token has expired."]),
        (ConnectionResetError(104, "Connection reset by peer"), ["connection was cut", "Check the network"]),
        (TimeoutError(), ["cannot be reached", "TimeoutError"]),
        (RuntimeError("a\n  long story.\n"), ["The Hub refused: a long story."]),
    ],
)
def test_every_failure_has_a_sentence(error, words):
    said = error_sentence(error, "ann/pets")
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert said.endswith(".")


def test_the_first_cause_counts_that_says_what_it_is():
    error = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert "connection was cut" in error_sentence(error, "ann/pets")


def test_a_mistake_of_ours_is_not_the_hubs():
    with pytest.raises(TypeError, match="ours"):
        error_sentence(TypeError("ours"), "ann/pets")
