"""Options of `iekd train`, each with its value, for the scripts beside this one."""

import argparse


def train_options(parser: argparse.ArgumentParser, words: "list[str]") -> "dict[str, str]":
    """["--batch-size", "32"] -> {"batch_size": "32"}; the parser's error for anything else."""
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        parser.error(f"'{' '.join(words)}' cannot be used: give options of iekd train as --name value")
    return {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
