"""Guess how text is encoded that does not say so: names in a zip, tables of labels."""

from __future__ import annotations

from itertools import pairwise

CANDIDATES = ("gb18030", "big5hkscs", "cp932", "cp949", "cp1251", "cp866", "koi8-r", "cp1252", "cp850", "cp874")
SURE = 0.05  # chardet's confidence from which short names were right when tried in all of these


def encoding_of(texts: list[bytes], western: tuple[str, ...]) -> str:
    """The encoding that all texts are in, as Python calls it: UTF-8 if they can be, else a guess.

    Long texts tell; of short ones, what occurs most is assumed.

    Args:
        texts: some of them with bytes that are not ASCII.
        western: the code pages that the system of whoever wrote them may have in Western Europe, the usual one first.
    """
    joined = b"\n".join(sorted({text for text in texts if not text.isascii()}))
    try:
        joined.decode()
        return "utf-8"
    except UnicodeDecodeError:
        pass
    import chardet  # a tenth of a second that few need

    guess = chardet.detect(joined, include_encodings=CANDIDATES, compat_names=False, no_match_encoding="cp437")
    found, sure = guess["encoding"] or "cp437", guess["confidence"] >= SURE
    if not sure and _all_common_hanzi(joined):
        found = "gb18030"
    elif not sure:
        found = next((page for page in western if _all_words(joined, page)), found)
    return next((encoding for encoding in (found, "cp437") if _decodes(texts, encoding)), "cp437")  # takes any byte


def _all_words(joined: bytes, encoding: str) -> bool:
    """Whether there are letters only, and none of them is large after a small one, as in the misread 'chÔteau'."""
    try:
        text = joined.decode(encoding)
    except UnicodeDecodeError:
        return False
    misread = any(a.islower() and b.isupper() and not b.isascii() for a, b in pairwise(text))
    return not misread and all(c.isalpha() or c.isascii() for c in text)


def _all_common_hanzi(joined: bytes) -> bool:
    """Whether all letters are among the 3,755 that GB2312 has for everyday Chinese."""
    try:
        text = joined.decode("gb2312")
    except UnicodeDecodeError:
        return False
    return all(c.isascii() or 0xB0 <= c.encode("gb2312")[0] <= 0xD7 for c in text)


def _decodes(texts: list[bytes], encoding: str) -> bool:
    """Whether every text can be read so, and no two become one."""
    try:
        return len({text.decode(encoding) for text in texts}) == len(set(texts))
    except UnicodeDecodeError:
        return False
