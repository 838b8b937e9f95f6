"""Images that stay in their files: listed compactly, and decoded each time they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from iekd.data.decoding import CROP, to_array
from iekd.errors import DataError


@dataclass(frozen=True)
class Files:
    """The paths of many files: a million names of 16 letters take about 36 MB.

    All names are one array of bytes, so that loader processes can share them: a list's reference counts would be
    written, and so copied, in each. File i lies in folders[which[i]] and is called names[starts[i] : ends[i]].
    """

    folders: tuple[str, ...]
    which: np.ndarray  # (N,) int32
    names: np.ndarray  # uint8
    starts: np.ndarray  # (N,) int64
    ends: np.ndarray  # (N,) int64

    @classmethod
    def of(cls, folders: Sequence[str], names: Iterable[Sequence[str]]) -> Files:
        """The named files of each folder, in that order."""
        encoded, lengths, counts = [], [np.zeros(0, np.int64)], []
        for of_folder in names:
            as_bytes = [os.fsencode(name) for name in of_folder]
            encoded.append(b"".join(as_bytes))
            lengths.append(np.fromiter(map(len, as_bytes), np.int64, len(as_bytes)))
            counts.append(len(as_bytes))
        ends = np.cumsum(np.concatenate(lengths))
        which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return cls(
            tuple(folders), which, np.frombuffer(b"".join(encoded), np.uint8), ends - np.concatenate(lengths), ends
        )

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, i: int) -> str:
        name = self.names[self.starts[i] : self.ends[i]].tobytes()
        return os.path.join(self.folders[self.which[i]], os.fsdecode(name))

    def take(self, rows: np.ndarray) -> Files:
        return replace(self, which=self.which[rows], starts=self.starts[rows], ends=self.ends[rows])

    def joined(self, other: Files) -> Files:
        """These files, then the others."""
        return Files(
            self.folders + other.folders,
            np.concatenate([self.which, other.which + len(self.folders)]),
            np.concatenate([self.names, other.names]),
            np.concatenate([self.starts, other.starts + len(self.names)]),
            np.concatenate([self.ends, other.ends + len(self.names)]),
        )


class FileImages:
    """What an array (N,H,W,C) uint8 of images is to its readers: shape, length, and rows by index, which are decoded.

    sums: (N,2C+1) of `image_sums`, from the one time that all of them were looked at. fit, white: see `to_array`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, files: Files, sums: np.ndarray, resolution: int, channels: int, fit: str = CROP,
        white: float | None = None,
    ) -> None:  # fmt: skip
        self.files, self.sums, self.fit, self.white = files, sums, fit, white
        self.shape = (len(files), resolution, resolution, channels)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def nbytes(self) -> int:
        """What they would take decoded."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """The images of those rows, as an array; of one row, one image.

        Raises:
            DataError: a file cannot be read any more.
        """
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if np.ndim(rows) == 0:
            return self._decoded(int(rows))
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)  # type: ignore[arg-type]
        for i, row in enumerate(rows):  # type: ignore[arg-type]
            images[i] = self._decoded(row)
        return images

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self._decoded, range(len(self)))

    def take(self, rows: np.ndarray) -> FileImages:
        """The same of some rows; nothing is decoded."""
        return self._of(self.files.take(rows), self.sums[rows])

    def joined(self, other: FileImages) -> FileImages:
        """These images, then the others."""
        return self._of(self.files.joined(other.files), np.concatenate([self.sums, other.sums]))

    def _of(self, files: Files, sums: np.ndarray) -> FileImages:
        return FileImages(files, sums, self.shape[1], self.shape[3], self.fit, self.white)

    def _decoded(self, row: int) -> np.ndarray:
        path = self.files[row]
        try:
            return to_array(path, self.shape[1], self.shape[3], "", self.fit, self.white)
        except DataError:
            raise self._gone(row) from None

    def _gone(self, row: int) -> DataError:
        return DataError(
            f"'{self.files[row]}' could be read when it was looked at first, and cannot be any more. "
            "Put it back and leave the folder alone while it is used, or start again without it."
        )


def image_sums(images: np.ndarray) -> np.ndarray:
    """Of each image (N,H,W,C) uint8 exact sums, (N,2C+1) int64: values and squares per channel, and the values of the
    outermost pixels (corners count twice)."""
    n, h, w, c = images.shape
    lines = images.reshape(n, h, w * c)  # numpy adds up long lines ten times as fast as pixels of three values
    squares = np.multiply(lines, lines, dtype=np.uint16)
    edges = (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1])  # (N,side,C) each
    border = sum(edge.sum((1, 2), dtype=np.int64) for edge in edges)
    inside = (v.sum(1, dtype=np.uint32).reshape(n, w, c).sum(1, dtype=np.int64) for v in (lines, squares))
    return np.column_stack([*inside, border])
