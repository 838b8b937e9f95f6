"""Names in a zip that does not say how they are encoded: UTF-8, or what the packer's system used at the time."""

from __future__ import annotations

import struct
import zipfile
import zlib

UTF8 = 0x800  # the flag of an entry whose name is UTF-8
UNICODE_PATH = 0x7075  # the extra field with a name in UTF-8 (Info-ZIP)
CANDIDATES = ("gb18030", "big5hkscs", "cp932", "cp949", "cp1251", "cp866", "cp1252", "cp850", "cp874")
SURE = 0.05  # chardet's confidence from which short names were right when tried in all of these
SHOWN = 4


def names_of(entries: list[zipfile.ZipInfo]) -> tuple[list[str], list[str]]:
    """(the name of each entry, what to say if an encoding had to be guessed: a sentence or none)."""
    raw = [None if entry.flag_bits & UTF8 else _raw(entry) for entry in entries]
    unknown = [name for name in raw if name is not None and not name.isascii()]
    encoding = _encoding_of(unknown)
    names = [
        entry.filename if name is None else name.decode(encoding) for entry, name in zip(entries, raw, strict=True)
    ]
    if not unknown or encoding == "utf-8":
        return names, []
    parts = {part for name in unknown for part in name.decode(encoding).replace("\\", "/").split("/")[:-1]}
    shown = ", ".join(f"'{part}'" for part in sorted(p for p in parts if not p.isascii())[:SHOWN])
    where = f", as in {shown}" if shown else ""
    return names, [
        f"The zip does not say how its names are encoded: they are read as {encoding.upper()}{where}. "
        "If that is wrong, pack it with UTF-8 names."
    ]


def _raw(entry: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name that zipfile has taken for code page 437; None if a name in UTF-8 stands beside it."""
    name, extra = entry.orig_filename.encode("cp437"), entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(field) > 5 and int.from_bytes(field[1:5], "little") == zlib.crc32(name):
            try:
                entry.filename = field[5:].decode()
            except UnicodeDecodeError:
                return name
            return None
    return name


def _encoding_of(names: list[bytes]) -> str:
    """The encoding that all names are in. Long names tell; of short ones, what occurs most in zips is assumed."""
    joined = b"\n".join(sorted({part for name in names for part in name.split(b"/") if not part.isascii()}))
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
    elif not sure and all(c.isalpha() or c.isascii() for c in joined.decode("cp850")):
        found = "cp850"  # Windows packs western names so
    for encoding in (found, "cp437"):
        if _decodes(names, encoding):
            return encoding
    return "cp437"  # takes any byte


def _all_common_hanzi(names: bytes) -> bool:
    """Whether all letters are among the 3,755 that GB2312 has for everyday Chinese."""
    try:
        text = names.decode("gb2312")
    except UnicodeDecodeError:
        return False
    return all(c.isascii() or 0xB0 <= c.encode("gb2312")[0] <= 0xD7 for c in text)


def _decodes(names: list[bytes], encoding: str) -> bool:
    """Whether every name can be read so, and no two become one."""
    try:
        return len({name.decode(encoding) for name in names}) == len(set(names))
    except UnicodeDecodeError:
        return False
