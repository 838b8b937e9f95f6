"""Guess how text is encoded that does not say so: names in a zip, tables of labels."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

CANDIDATES = ("gb18030", "big5hkscs", "cp932", "cp949", "cp1251", "cp866", "koi8-r", "cp1252", "cp850", "cp874")
RARER = ("cp1250", "cp852", "cp1253", "cp737")  # of Central Europe and Greece, which short names are never taken for
FEW = 12  # bytes that are not ASCII: so few may well be words in more than one encoding
# which first bytes have the common characters of the large alphabets, and which script those are
COMMON = {
    "gb18030": ("gb2312", range(0xB0, 0xD8)), "big5hkscs": ("big5", range(0xA4, 0xC7)),
    "cp932": ("shift_jis", range(0x81, 0x99)), "cp949": ("euc_kr", range(0xB0, 0xC9)),
}  # fmt: skip
JAPANESE = {"CJK", "HIRAGANA", "KATAKANA"}
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
    unclear = [text for text in texts if not text.isascii()]
    if not _reads_as_words(unclear, found):  # a guess that makes no words, as '彻ka' of the Polish 'łąka'
        found = next((other for other in (*western, *RARER) if _reads_as_words(unclear, other)), found)
    return next((encoding for encoding in (found, "cp437") if _decodes(texts, encoding)), "cp437")  # takes any byte


def also_possible(texts: list[bytes], found: str) -> dict[str, str]:
    """Other encodings in which texts of few bytes are words too -> the first of them as it would be read; none for
    longer texts, which tell.

    Args:
        texts: as for `encoding_of`, which took them for `found`.
    """
    unclear = sorted({text for text in texts if not text.isascii()})
    if sum(byte >= 0x80 for text in unclear for byte in text) > FEW:
        return {}
    others: dict[str, str] = {}
    seen = [[text.decode(found) for text in unclear]]
    for encoding in (*CANDIDATES, *RARER):
        if _reads_as_words(unclear, encoding):
            read = [text.decode(encoding) for text in unclear]
            if read not in seen:
                others[encoding] = read[0]
                seen.append(read)
    return others


def _reads_as_words(texts: list[bytes], encoding: str) -> bool:
    return _decodes(texts, encoding) and all(_are_words(text.decode(encoding), encoding) for text in texts)


def _are_words(text: str, encoding: str) -> bool:
    """Whether a text has common letters only, each word in one script and without capitals after small letters."""
    if not _are_letters(text):
        return False
    scripts = set()
    for word in re.findall(r"[^\W\d_]+", text):
        of_word = {unicodedata.name(c, "?").split()[0].partition("-")[0] for c in word}
        if not (len(of_word) == 1 or of_word <= JAPANESE):
            return False
        if of_word == {"LATIN"} and len(word) > 1 and not any(c.isascii() for c in word):  # 'êîøêè' is none
            return False
        scripts |= of_word - {"LATIN"} if word.isascii() else of_word
    if encoding not in COMMON:
        return len(scripts) == 1
    strict, firsts = COMMON[encoding]
    try:
        common = all(c.encode(strict)[0] in firsts for c in text if not c.isascii())
    except UnicodeEncodeError:
        return False
    return common and scripts <= ({"HANGUL"} if encoding == "cp949" else JAPANESE)


def _all_words(joined: bytes, encoding: str) -> bool:
    """Whether there are letters only, and none of them is large after a small one, as in the misread 'chÔteau'."""
    try:
        text = joined.decode(encoding)
    except UnicodeDecodeError:
        return False
    return _are_letters(text)


def _are_letters(text: str) -> bool:
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
