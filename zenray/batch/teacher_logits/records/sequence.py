"""One row of a shard: a sequence's tokens and records as binary values, and a checksum over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from zenray.batch.teacher_logits.records.format import RecordFormat
from zenray.batch.teacher_logits.records.planes import NUM_RANK_PLANES, from_planes, octets, to_planes
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.engine.scoring import HiddenRows, ScoredRows
from zenray.errors import OutputDamaged

TOKEN_RANKS = "token_ranks"  # noqa: S105
CHECKSUM = "checksum"
_CHECKSUM_BYTES = 8


def row_checksum(row_id: str, values: Mapping[str, bytes]) -> bytes:
    """Of a row's values with their names, and of whose they are, so that one in another row or column shows as well.

    BLAKE2b of 8 bytes rather than a CRC: it misses one damage in 2**64 whatever its pattern, at 1.4 GB/s, and is in the
    standard library.
    """
    state = blake2b(digest_size=_CHECKSUM_BYTES)
    for name, data in [("", row_id.encode()), *sorted(values.items())]:
        state.update(f"{name}\0{len(data)}\0".encode())  # Lengths, so that no byte can change sides.
        state.update(data)
    return state.digest()


def check_row(row_id: str, values: Mapping[str, bytes], checksum: bytes) -> None:
    """Raises OutputDamaged."""
    if row_checksum(row_id, values) != checksum:
        raise OutputDamaged(f"row {row_id}: its columns do not have its checksum")


def sequence_fields(record_format: RecordFormat) -> tuple[pa.Field, ...]:
    """The columns that `encode_sequence` fills."""
    return (
        pa.field(TOKEN_RANKS, pa.binary(), nullable=False),
        *record_format.fields,
        pa.field(CHECKSUM, pa.binary(_CHECKSUM_BYTES), nullable=False),
    )


def encode_sequence(
    row_id: str,
    token_ids_T: np.ndarray,
    rows: ScoredRows,
    record_format: RecordFormat,
    vocabulary: Vocabulary,
    seed: int,
) -> dict[str, bytes]:
    """`rows` are the records of all scored tokens in their order, those of several segments end to end."""
    values = {
        TOKEN_RANKS: to_planes(vocabulary.ranks_V[token_ids_T], NUM_RANK_PLANES),
        **record_format.encode(rows, vocabulary, seed),
    }
    return {**values, CHECKSUM: row_checksum(row_id, values)}


def decode_sequence(
    row_id: str,
    values: Mapping[str, bytes],
    num_tokens: int,
    num_scored: int,
    record_format: RecordFormat,
    vocabulary: Vocabulary,
) -> tuple[np.ndarray, ScoredRows]:
    """Token ids (int32) and records. Raises OutputDamaged."""
    kept = {name: values[name] for name in (TOKEN_RANKS, *(field.name for field in record_format.fields))}
    check_row(row_id, kept, values[CHECKSUM])
    token_ids_T = vocabulary.ids_at(from_planes(kept[TOKEN_RANKS], NUM_RANK_PLANES, num_tokens))
    return token_ids_T, record_format.decode(kept, num_scored, vocabulary)


def hidden_fields(layers: tuple[int, ...]) -> tuple[pa.Field, ...]:
    """The columns of hidden states, in a table of their own, that `encode_hidden` fills."""
    names = [name for layer in layers for name in (_values_name(layer), _scales_name(layer))]
    return (
        *(pa.field(name, pa.binary(), nullable=False) for name in names),
        pa.field(CHECKSUM, pa.binary(_CHECKSUM_BYTES), nullable=False),
    )


def encode_hidden(row_id: str, hidden: Mapping[int, HiddenRows]) -> dict[str, bytes]:
    """int8 values row after row, and little-endian float32 scales, for every layer."""
    values: dict[str, bytes] = {}
    for layer, states in hidden.items():
        values[_values_name(layer)] = states.values_RD.astype(np.int8).tobytes()
        values[_scales_name(layer)] = states.scales_R.astype("<f4").tobytes()
    return {**values, CHECKSUM: row_checksum(row_id, values)}


def decode_hidden(
    row_id: str, values: Mapping[str, bytes], layers: tuple[int, ...], num_scored: int
) -> dict[int, HiddenRows]:
    """Raises OutputDamaged."""
    names = [name for layer in layers for name in (_values_name(layer), _scales_name(layer))]
    check_row(row_id, {name: values[name] for name in names}, values[CHECKSUM])
    hidden = {}
    for layer in layers:
        data = values[_values_name(layer)]
        width = len(data) // max(1, num_scored)
        values_RD = octets(data, num_scored * width).view(np.int8).reshape(num_scored, width)
        scales_R = octets(values[_scales_name(layer)], 4 * num_scored).view("<f4").astype(np.float32)
        hidden[layer] = HiddenRows(values_RD, scales_R)
    return hidden


def _values_name(layer: int) -> str:
    return f"hidden_{layer}_values"


def _scales_name(layer: int) -> str:
    return f"hidden_{layer}_scales"
