"""Files of rows that never have to fit into memory: Parquet in small row groups, mapped columns.

A Parquet row group holds nested values of 2 GiB at most: pyarrow writes more without a word, and
then neither it nor ``datasets.load_dataset`` can read the file ("Nested data conversions not
implemented for chunked array outputs"). So nothing here is written as one table. Readers open
Parquet files with ``pre_buffer=False``: by default pyarrow keeps every row group that it has read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.paths import whole_file

GROUP_BYTES = 64 << 20
"""Bytes of a row group or a batch, so that no reader needs more memory."""


class RowWriter:
    """Writes a Parquet file a row at a time, in row groups of bounded bytes.

    Args:
        path: of the open file; see `row_file` and `rilbench.paths.whole_file`.
        schema: a pyarrow schema.
    """

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow.parquet as pq

        self.schema = schema
        self.rows = 0
        """Rows written so far."""
        self._file = pq.ParquetWriter(path, schema)
        self._waiting: list[Mapping[str, Any]] = []
        self._bytes = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._waiting.append(row)
        self._bytes += _size(row)
        self.rows += 1
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def write_batch(self, batch: Any) -> None:
        """Add rows that are in Arrow's memory already: a record batch of the same columns."""
        self._flush()
        self._file.write_batch(batch)
        self.rows += batch.num_rows

    def close(self, metadata: Mapping[str, str] | None = None) -> None:
        """Write what waits and the footer, with metadata that only the end knows."""
        self._flush()
        if metadata:
            self._file.add_key_value_metadata(dict(metadata))
        self._file.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._file.write_table(pa.Table.from_pylist(self._waiting, self.schema))
        self._waiting, self._bytes = [], 0


@contextmanager
def row_file(path: Path, schema: Any) -> Iterator[RowWriter]:
    """A `RowWriter` whose file takes its place when the body ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        writer = RowWriter(part, schema)
        try:
            yield writer
        finally:
            writer.close()


def as_written(batch: Any) -> Any:
    """Return a record batch whose numbers of 32 bits are 3.14, and not 3.140000104904175."""
    import pyarrow as pa

    def swapped(kind: Any, to: Any) -> Any:
        if pa.types.is_float32(kind):
            return to
        if pa.types.is_list(kind):
            return pa.list_(kind.field(0).with_type(swapped(kind.value_type, to)))
        if pa.types.is_struct(kind):
            return pa.struct([field.with_type(swapped(field.type, to)) for field in kind])
        return kind

    for i, field in enumerate(batch.schema):
        exact = swapped(field.type, pa.float64())
        if exact != field.type:  # by the shortest text that is the number
            column = batch.column(i).cast(swapped(field.type, pa.string())).cast(exact)
            batch = batch.set_column(i, field.name, column)
    return batch


def _size(value: Any) -> int:
    """Bytes of a value, about; 8 for a number."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], int):  # one look at a list of numbers, not at each
            return 8 * len(value)
        return sum(map(_size, value))
    return 8


def write_column(
    path: Path,
    values: Iterable[Sequence[str | bytes] | Any],
    kind: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write values to an Arrow file that `MappedColumn` reads.

    Args:
        path: the file, written whole or not at all.
        values: texts or bytes, a few at a time: lists, or arrays of pyarrow.
        kind: ``string`` or ``binary``.
        metadata: what `read_column_metadata` returns.
    """
    import pyarrow as pa

    schema = pa.schema({"value": pa.type_for_alias(kind)}, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for some in values:
            writer.write_batch(pa.record_batch([pa.array(some, schema.types[0])], schema=schema))


class MappedColumn:
    """The values of a file of `write_column` by their numbers, read from the disk when asked for.

    The file is mapped: it takes no memory of the process, and processes of one machine share it.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            self._values = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("value")
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"{path} cannot be read ({error}); run again with --resume to write it again"
            ) from error

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> Any:
        return self._values[number].as_py()


def mapped_column(path: Path) -> MappedColumn:
    """Return the `MappedColumn` of a file, opened once in a process until it is written again."""
    try:
        return _mapped(path, path.stat().st_ino)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run again with --resume to write it again"
        ) from error


@lru_cache(maxsize=4)
def _mapped(path: Path, _inode: int) -> MappedColumn:
    return MappedColumn(path)


def read_column_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file of `write_column`; empty without a whole file."""
    import pyarrow as pa

    try:
        metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata or {}
    except (OSError, pa.ArrowException):
        return {}
    return {key.decode(): value.decode() for key, value in metadata.items()}
