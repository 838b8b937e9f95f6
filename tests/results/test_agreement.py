"""Filters and counts of models that predict the same images."""

from __future__ import annotations

import pytest

from iekd.results.agreement import (
    ALL,
    ALL_WRONG,
    DIFFER,
    FILTERS,
    IE_ONLY,
    TEACHER_ONLY,
    Answered,
    Kinds,
    chosen,
    missing,
    summarise,
)

MODELS = ("teacher", "baseline", "ie-ft")
KINDS = Kinds(("teacher",), ("baseline",), ("ie-ft",), ("baseline", "ie-ft"))


def image(said: str, right: str = "") -> Answered:
    return Answered(dict(zip(MODELS, said, strict=True)), right)


IMAGES = [image("aaa", "a"), image("aba", "a"), image("bbb", "a"), image("aab", "a"), image("abc"), Answered({})]


@pytest.mark.parametrize(
    ("wanted", "places"),
    [(ALL, [0, 1, 2, 3, 4, 5]), (DIFFER, [1, 3, 4]), (ALL_WRONG, [2]), (TEACHER_ONLY, [1, 3]), (IE_ONLY, [1])],
)
def test_each_filter_has_its_images(wanted, places):
    assert chosen(wanted, IMAGES, KINDS) == places


def test_an_image_without_a_right_answer_is_neither_right_nor_wrong():
    unknown = [image("abc")]
    for wanted in (ALL_WRONG, TEACHER_ONLY, IE_ONLY):
        assert chosen(wanted, unknown, KINDS) == []
        assert missing(wanted, unknown, KINDS) == "needs right answers"
    assert missing(DIFFER, unknown, KINDS) == missing(ALL, unknown, KINDS) == ""


def test_filters_say_which_models_they_lack():
    students, one = Kinds((), ("baseline",), ("ie-ft",), MODELS[1:]), [Answered({"a": "x"}, "x")]
    assert missing(TEACHER_ONLY, IMAGES, students) == "needs a teacher and a student"
    assert missing(IE_ONLY, IMAGES, Kinds(("teacher",), (), ("ie-ft",), ("ie-ft",))).startswith("needs an IE student")
    assert missing(DIFFER, one, Kinds()) == "needs two models"
    assert all(not missing(wanted, IMAGES, KINDS) for wanted in FILTERS)


def test_one_of_several_of_a_kind_is_enough():
    """Two runs side by side: the teacher of one is right, the student of the other wrong."""
    kinds = Kinds(("t1", "t2"), ("p1", "p2"), ("i1", "i2"), ("p1", "p2", "i1", "i2"))
    both = Answered({"t1": "b", "t2": "a", "p1": "a", "p2": "b", "i1": "b", "i2": "a"}, "a")
    assert chosen(TEACHER_ONLY, [both], kinds) == chosen(IE_ONLY, [both], kinds) == [0]
    assert chosen(ALL_WRONG, [both], kinds) == []


def test_the_summary_counts_only_what_is_known():
    found = summarise(IMAGES, MODELS)
    assert (found.images, found.broken, found.agree, found.differ, found.labelled) == (5, 1, 2, 3, 4)
    assert found.right == {"teacher": 3, "baseline": 2, "ie-ft": 2}
    assert summarise([], MODELS).right == dict.fromkeys(MODELS, 0)


def test_an_unknown_filter_is_named(refuses):
    refuses(lambda: chosen("everything", IMAGES, KINDS), "everything", DIFFER)
