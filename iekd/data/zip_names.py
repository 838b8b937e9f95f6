"""Names in a zip that does not say how they are encoded: UTF-8, or what the packer's system used at the time."""

from __future__ import annotations

import struct
import zipfile
import zlib

from iekd.data.encodings import also_possible, encoding_of

UTF8 = 0x800  # the flag of an entry whose name is UTF-8
UNICODE_PATH = 0x7075  # the extra field with a name in UTF-8 (Info-ZIP)
WESTERN = ("cp850", "cp1252")  # Windows packs western names so, and some programs so
SHOWN = 4


def names_of(entries: list[zipfile.ZipInfo]) -> tuple[list[str], list[str]]:
    """(the name of each entry, what to say if an encoding had to be guessed: a sentence or none)."""
    raw = [None if entry.flag_bits & UTF8 else _raw(entry) for entry in entries]
    unknown = [name for name in raw if name is not None and not name.isascii()]
    raw_parts = [part for name in unknown for part in name.split(b"/")]
    encoding = encoding_of(raw_parts, WESTERN)
    names = [
        entry.filename if name is None else name.decode(encoding) for entry, name in zip(entries, raw, strict=True)
    ]
    others = [f"{other.upper()} ('{as_read}')" for other, as_read in also_possible(raw_parts, encoding).items()]
    if not unknown or (encoding == "utf-8" and not others):
        return names, []
    parts = {part for name in unknown for part in name.decode(encoding).replace("\\", "/").split("/")[:-1]}
    shown = ", ".join(f"'{part}'" for part in sorted(p for p in parts if not p.isascii())[:SHOWN])
    where = f", as in {shown}" if shown else ""
    few = f" They are so short that they may also be {' or '.join(others[:SHOWN])}." if others else ""
    return names, [
        f"The zip does not say how its names are encoded: they are read as {encoding.upper()}{where}.{few} "
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
