"""The rows of an SQLite file, read page by page, so that a damaged page hides no other.

After https://sqlite.org/fileformat2.html. The ``.recover`` of the sqlite3 program is not to be
relied on: Debian's is built without the tables that it needs, and Python brings no program.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType

Value = None | int | float | str | bytes
Row = tuple[int, tuple[Value, ...]]
"""A row's number and its values."""

_MAGIC = b"SQLite format 3\0"
_INTERIOR, _LEAF, _INDEX_INTERIOR, _INDEX_LEAF = 5, 13, 2, 10
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
"""Bytes of an integer, by its type in a record."""
_USUAL_SIZE = 4096


class UnreadableError(Exception):
    """A page or a row is not what it should be."""


class PageFile:
    """An SQLite file as pages, numbered from 1.

    Attributes:
        count: the pages that the file should have, by its header; those it has, if that is lost.
        unreadable_rows: rows of readable pages that could not be read so far.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        header = self._bytes[:100]
        size = int.from_bytes(header[16:18], "big")
        size = 65536 if size == 1 else size
        self._headed = header[:16] == _MAGIC and 512 <= size <= 65536 and not size & (size - 1)
        self._size = size if self._headed else _USUAL_SIZE
        self._usable = self._size - (header[20] if self._headed else 0)
        self._present = len(self._bytes) // self._size
        said = int.from_bytes(header[28:32], "big") if self._headed else 0
        self.count = max(said, -(-len(self._bytes) // self._size))
        self.unreadable_rows = 0
        self._overflow: set[int] = set()
        self._failed: set[int] = set()
        self._free = self._free_pages(int.from_bytes(header[32:36], "big") if self._headed else 0)

    def __enter__(self) -> PageFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._bytes.close()

    def leaves(self, reached: Container[int]) -> Iterator[int]:
        """Yield the pages that hold rows.

        Args:
            reached: pages that a table leads to, in use whatever the list of free pages says.
        """
        for number in range(1, self._present + 1):
            in_use = number in reached or number not in self._free
            if in_use and self._kind(number) == _LEAF:
                yield number

    def tree(self, root: int) -> Iterator[int]:
        """Yield the pages of a table that can be reached from its first page."""
        seen, waiting = set(), [root]
        while waiting:
            number = waiting.pop()
            if number in seen or not 0 < number <= self._present:
                continue
            seen.add(number)
            yield number
            if self._kind(number) == _INTERIOR:
                page, start = self._page(number), self._start(number)
                waiting.append(int.from_bytes(page[start + 8 : start + 12], "big"))
                waiting += [
                    int.from_bytes(page[cell : cell + 4], "big") for cell in self._cells(number)
                ]

    def rows(self, number: int) -> Iterator[Row]:
        """Yield the rows of a page, if it has any; unreadable ones are counted and left out."""
        if self._kind(number) != _LEAF:
            return
        page = self._page(number)
        cells = self._cells(number)
        if not cells and page[self._start(number) + 3 : self._start(number) + 5] != b"\0\0":
            self._failed.add(number)
        for cell in cells:
            try:
                length, at = _varint(page, cell)
                rowid, at = _varint(page, at)
                rowid -= (1 << 64) if rowid >> 63 else 0
                row = rowid, _values(self._payload(page, at, length, self._usable - 35))
            except (UnreadableError, IndexError, struct.error, UnicodeDecodeError):
                self.unreadable_rows += 1
                continue
            yield row

    def unreadable_pages(self) -> int:
        """Return how many pages are missing or of no known kind, after all rows were read."""
        self._read_overflow_of_indexes()
        return sum(
            number > self._present
            or number in self._failed
            or (
                number not in self._free
                and number not in self._overflow
                and self._kind(number) not in (_INTERIOR, _LEAF, _INDEX_INTERIOR, _INDEX_LEAF)
            )
            for number in range(1, self.count + 1)
        )

    def _page(self, number: int) -> bytes:
        if not 0 < number <= self._present:
            raise UnreadableError
        return self._bytes[(number - 1) * self._size : number * self._size]

    @staticmethod
    def _start(number: int) -> int:
        """Return where a page's header begins: the first page has the file's before it."""
        return 100 if number == 1 else 0

    def _kind(self, number: int) -> int:
        return self._bytes[(number - 1) * self._size + self._start(number)]

    def _cells(self, number: int) -> list[int]:
        """Return where a page's cells are; none if the page contradicts itself."""
        page, start = self._page(number), self._start(number)
        head = 12 if self._kind(number) in (_INTERIOR, _INDEX_INTERIOR) else 8
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        first = start + head + 2 * count
        if first > self._usable:
            return []
        cells = struct.unpack_from(f">{count}H", page, start + head)
        return list(cells) if all(first <= cell < self._usable for cell in cells) else []

    def _payload(self, page: bytes, at: int, length: int, most: int) -> bytes:
        """Return a cell's content, of which pages of overflow may hold the rest."""
        if length <= most:
            if at + length > self._usable:
                raise UnreadableError
            return page[at : at + length]
        least = (self._usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (self._usable - 4)
        local = local if local <= most else least
        parts = [page[at : at + local]]
        rest = length - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        if rest > self._present * self._usable:
            raise UnreadableError
        while rest > 0:
            further = self._page(following)
            self._overflow.add(following)
            parts.append(further[4 : 4 + min(rest, self._usable - 4)])
            rest -= len(parts[-1])
            following = int.from_bytes(further[:4], "big")
        return b"".join(parts)

    def _free_pages(self, trunk: int) -> set[int]:
        """Return the pages that hold nothing, as far as their list can be read."""
        free: set[int] = set()
        while 0 < trunk <= self._present and trunk not in free:
            page = self._page(trunk)
            free.add(trunk)
            following, count = struct.unpack_from(">II", page)
            if count > self._usable // 4 - 2:
                break
            free.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = following
        return free

    def _read_overflow_of_indexes(self) -> None:
        """Note the pages of overflow that belong to indexes."""
        most = (self._usable - 12) * 64 // 255 - 23
        for number in range(1, self._present + 1):
            kind = self._kind(number)
            if kind not in (_INDEX_INTERIOR, _INDEX_LEAF) or number in self._free:
                continue
            page = self._page(number)
            try:
                for cell in self._cells(number):
                    length, at = _varint(page, cell + (4 if kind == _INDEX_INTERIOR else 0))
                    if length > most:
                        self._payload(page, at, length, most)
            except (UnreadableError, IndexError):
                self._failed.add(number)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes and where it ends."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        if byte < 0x80:
            return value << 7 | byte, at
        value = value << 7 | byte & 0x7F
    return value << 8 | data[at], at + 1


def _values(record: bytes) -> tuple[Value, ...]:
    """Return a record's values.

    Raises:
        UnreadableError: the record contradicts itself.
    """
    end, at = _varint(record, 0)
    values: list[Value] = []
    place = end
    while at < end:
        kind, at = _varint(record, at)
        length = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        content = record[place : place + length]
        place += length
        if kind in _INTEGERS:
            values.append(int.from_bytes(content, "big", signed=True))
        elif kind == 7:
            values.append(struct.unpack(">d", content)[0])
        elif kind >= 12:
            values.append(content.decode() if kind % 2 else content)
        elif kind in (0, 8, 9):
            values.append(None if kind == 0 else kind - 8)
        else:
            raise UnreadableError
    if at != end or place != len(record):
        raise UnreadableError
    return tuple(values)
