"""What goes wrong without an answer of the Hub: words for everything but our own mistakes."""

from __future__ import annotations

import errno

import pytest

from iekd.hub_errors import error_sentence
from iekd.models import hub_configs


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


def test_a_name_that_is_not_there_is_doubted_also_without_a_token(hub, published, refuses, monkeypatch, tmp_path):
    """To whoever has none, the Hub answers 401 for any name that is not public, as to a token that it does not know."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    published("ann/tiny", {})
    doubted = ("There is no 'ann/tyni'", "Check the name; if it is private, log in", "hf auth login", "HF_TOKEN")
    for token in (None, "hf_reader"):
        monkeypatch.setenv("HF_TOKEN", token or "")
        assert "write" not in refuses(lambda: hub_configs.look_up("hf:ann/tyni"), *doubted)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = refuses(lambda: hub_configs.look_up("hf:ann/tiny"), "does not accept the token", "a token that may read it")
    assert "write" not in said


@pytest.mark.parametrize(("gated", "words"), [(True, "has to be requested"), (False, "may not do this")])
def test_reading_needs_no_token_that_may_write(hub, published, refuses, gated, words):
    published("ann/tiny", {})
    hub.repo("ann/tiny").gated = gated
    if not gated:
        hub.fail("/resolve/", 403)
    said = refuses(lambda: hub_configs.look_up("hf:ann/tiny"), words, "that may read it")
    assert "write" not in said
