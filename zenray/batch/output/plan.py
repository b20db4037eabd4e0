"""Whether tables are the ones that a job planned for a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from zenray.batch.output.layout import shard_name
from zenray.batch.output.row_ids import is_part_of
from zenray.batch.output.shard import own_schema, row_ids_of
from zenray.errors import OutputDamaged

Schemas = Mapping[str, pa.Schema]
"""Of companions by name, and of the shards under no name."""


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard has `rows_per_shard` rows, the last one the rest; with the planned `row_ids` it must have these."""

    num_shards: int
    rows_per_shard: int
    row_ids: Sequence[str] | None

    def check(self, index: int, tables: Mapping[str, pa.Table]) -> None:
        """Of a shard under no name and its companions by theirs, which have rows of it in their order. Raises
        OutputDamaged."""
        name, most, shard = shard_name(index), self.rows_per_shard, tables[""]
        is_last = index == self.num_shards - 1
        if not (1 <= shard.num_rows <= most if is_last else shard.num_rows == most):
            raise OutputDamaged(f"{name} would have {shard.num_rows} rows, planned are {most}")
        row_ids = row_ids_of(shard)
        if len(set(row_ids)) < len(row_ids):
            raise OutputDamaged(f"{name} would have a row twice")
        if self.row_ids is not None and row_ids != list(self.row_ids[index * most : (index + 1) * most]):
            raise OutputDamaged(f"{name} would have other rows than the planned ones, or in another order")
        for companion, table in tables.items():
            if not is_part_of(row_ids_of(table), row_ids):
                raise OutputDamaged(f"{companion}/{name} would have other rows than its shard, or in another order")


def check_schemas(index: int, tables: Mapping[str, pa.Table], earlier: Schemas) -> Schemas:
    """All shards have one schema, and so have their companions of one name: this one's. Raises OutputDamaged."""
    for name, schema in earlier.items():
        if not own_schema(tables[name].schema).equals(schema, check_metadata=True):
            file = f"{name}/{shard_name(index)}" if name else shard_name(index)
            raise OutputDamaged(f"{file} would have another schema than those before it")
    return {name: own_schema(table.schema) for name, table in tables.items()}
