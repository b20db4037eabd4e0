"""A shard: a table as Parquet bytes that depend on its rows alone, and back again with every check there is."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from zenray.batch.rows import ROW_ID
from zenray.errors import OutputDamaged

_JOB_KEY, _SHARD_KEY, _TOKENS_KEY = b"zenray.job", b"zenray.shard", b"zenray.num_tokens"
_COMPANION_KEY = b"zenray.companion"  # Of companions alone.
_OWN_KEYS = (_JOB_KEY, _SHARD_KEY, _TOKENS_KEY, _COMPANION_KEY)
_ZSTD_LEVEL, _COMPANION_ZSTD_LEVEL = 15, 3
"""Shards are small and kept for long; companions are what is large, and compresses badly."""


def encode_shard(table: pa.Table, job_digest: str, index: int, num_tokens: int, companion: str = "") -> bytes:
    """The same bytes for the same rows, however the table came about (chunks, slices) and whoever writes it.

    The footer says whose shard it is, which, and which companion of it, so that one at a wrong place tells. Page
    checksums, because a flipped byte is read silently without; statistics of numbers only, because those of texts and
    blobs cost more than they are worth.
    """
    own = _own_metadata(job_digest, index, num_tokens, companion)
    table = table.combine_chunks().replace_schema_metadata({**(table.schema.metadata or {}), **own})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(table.num_rows, 1),
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=_COMPANION_ZSTD_LEVEL if companion else _ZSTD_LEVEL,
        use_dictionary=False,
        use_compliant_nested_type=False,  # It renames the items of lists, so that a table reads back as another one.
        write_statistics=_numbers(table.schema),
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode_shard(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table, its page checksums verified. Raises OutputDamaged.

    A column that is not read is not verified by this; its file's SHA-256 covers it.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        # Arrow's threads abort a process that ends soon after (one in three with torch loaded), and gain nothing here.
        return file.read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OutputDamaged(f"not a readable shard: {error}") from error


def shard_schema(data: bytes) -> pa.Schema:
    """The schema as the job made it, without what tells shards apart. Raises OutputDamaged."""
    try:
        return own_schema(pq.read_schema(pa.BufferReader(data)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OutputDamaged(f"not a readable shard: {error}") from error


def row_ids_of(table: pa.Table) -> list[str]:
    """Raises OutputDamaged where a row has none."""
    if ROW_ID not in table.column_names:
        raise OutputDamaged(f"has no column {ROW_ID}, only {', '.join(table.column_names)}")
    row_ids: list[str] = table.column(ROW_ID).to_pylist()
    if not all(isinstance(each, str) for each in row_ids):
        raise OutputDamaged(f"column {ROW_ID} has other things than texts")
    return row_ids


def own_schema(schema: pa.Schema) -> pa.Schema:
    """A shard's schema without what `encode_shard` added."""
    metadata = {key: value for key, value in (schema.metadata or {}).items() if key not in _OWN_KEYS}
    return schema.with_metadata(metadata or None)


def footer_problem(table: pa.Table, job_digest: str, index: int, num_tokens: int, companion: str = "") -> str | None:
    """What a shard's footer says that its place does not; None where they agree."""
    metadata, expected = table.schema.metadata or {}, _own_metadata(job_digest, index, num_tokens, companion)
    for key in _OWN_KEYS:
        found, value = metadata.get(key, b"").decode(errors="replace"), expected.get(key, "")
        if found != value:
            return f"its footer says {key.decode()}={found or 'nothing'}, expected {value or 'nothing'}"
    return None


def _own_metadata(job_digest: str, index: int, num_tokens: int, companion: str) -> dict[bytes, str]:
    own = {_JOB_KEY: job_digest, _SHARD_KEY: str(index), _TOKENS_KEY: str(num_tokens)}
    return {**own, _COMPANION_KEY: companion} if companion else own


def _numbers(schema: pa.Schema) -> list[str] | bool:
    return [
        each.name
        for each in schema
        if pa.types.is_integer(each.type) or pa.types.is_floating(each.type) or pa.types.is_boolean(each.type)
    ] or False
