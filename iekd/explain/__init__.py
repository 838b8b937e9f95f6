"""Why networks differ: where they look, how alike their features are, and what each half of an IE student does.

`explain.explain` computes everything, one file per diagnostic; `report.write` writes it. Each diagnostic is a function
that returns a plain dataclass, and stands beside its texts (`ABOUT`).
"""
