"""A dump of teacher logits as a `torch.utils.data` dataset.

```python
dataset = TeacherLogitsDataset(output, seed=1)
for epoch in range(2):
    dataset.set_epoch(epoch)
    for batch in DataLoader(dataset, batch_size=2, num_workers=num_workers, collate_fn=collate):
        same_BTT = batch.segment_ids_BT[:, :, None] == batch.segment_ids_BT[:, None, :]
        attend_BTT = same_BTT & torch.ones(same_BTT.shape[1:], dtype=torch.bool).tril()
        logits_BTV = student(batch.token_ids_BT, batch.position_ids_BT, attend_BTT)
        logits_RV = logits_BTV.flatten(0, 1)[batch.predictors_R]
        loss = sparse_cross_entropy(logits_RV, batch.ids_RK, batch.probabilities_RK).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dataset.mark_trained(batch)
        checkpoint = {"student": student.state_dict(), "data": dataset.state_dict()}
```
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from zenray.batch.teacher_logits.reading.batches import Sample, TeacherBatch
from zenray.batch.teacher_logits.reading.order import Place, epoch_order
from zenray.batch.teacher_logits.reading.reader import RecordedSequence, RecordReader, StoredRow
from zenray.batch.teacher_logits.records.vocabulary import Vocabulary
from zenray.errors import InvalidRequest


class TeacherLogitsDataset(IterableDataset[Sample]):
    """The sequences of an output, each once an epoch over all ranks and workers, in an order that follows from seed,
    epoch and their numbers.

    A run goes on exactly where it was: `state_dict` tells which samples were trained on (`mark_trained`), not which
    were read ahead, so it holds for any DataLoader and number of workers, which must be the same afterwards. Each rank
    keeps its own state. Workers copy the dataset when an iteration begins: use no `persistent_workers`.

    Reading raises OutputDamaged. A sequence's hidden states are in its `rows.hidden` where `hidden` asks for them.
    """

    def __init__(
        self,
        output: Path | str,
        seed: int = 0,
        buffer_size: int = 256,
        rank: int = 0,
        num_ranks: int = 1,
        hidden: bool = False,
    ) -> None:
        if not 0 <= rank < num_ranks:
            raise InvalidRequest.of("rank", rank, f"0 to {num_ranks - 1}, num_ranks being {num_ranks}")
        if buffer_size < 1:
            raise InvalidRequest.of("buffer_size", buffer_size, "1 (the stored order) or more")
        self._reader = RecordReader(output, hidden)
        self._seed, self._buffer_size, self._rank, self._num_ranks = seed, buffer_size, rank, num_ranks
        self._rows_of_shards = [(shard, self._reader.num_rows(shard)) for shard in self._reader.shards]
        self._epoch = 0
        self._num_streams: int | None = None
        self._trained: dict[int, int] = {}
        self._next_worker = (
            0  # Whose turn it is: a DataLoader takes batches of its workers in turn, the first one's first.
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """For dense targets."""
        return self._reader.footer.vocabulary

    def set_epoch(self, epoch: int) -> None:
        """Another order. Nothing of a new epoch has been trained on; setting the present one again changes nothing."""
        if epoch != self._epoch:
            self._epoch, self._num_streams, self._trained, self._next_worker = epoch, None, {}, 0

    def mark_trained(self, batch: TeacherBatch) -> None:
        """Samples of a batch will not come again in this epoch, once the state is saved and loaded."""
        for sample in batch.samples:
            self._num_streams = sample.num_streams
            self._next_worker = (sample.stream + 1) % (sample.num_streams // self._num_ranks)
            self._trained[sample.stream] = max(self._trained.get(sample.stream, 0), sample.position + 1)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        trained = {str(stream): count for stream, count in self._trained.items()}  # As JSON would have it.
        return {
            "order": self._order(),
            "epoch": self._epoch,
            "num_streams": self._num_streams,
            "trained": trained,
            "next_worker": self._next_worker,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises InvalidRequest for the state of another order."""
        if state["order"] != self._order():
            raise InvalidRequest.of("state", state["order"], f"one that was saved with {self._order()}")
        self._epoch, self._num_streams = state["epoch"], state["num_streams"]
        self._trained = {int(stream): count for stream, count in state["trained"].items()}
        self._next_worker = state["next_worker"]

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        index, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        stream = self._rank * num_workers + (index + self._next_worker) % num_workers
        num_streams = self._num_ranks * num_workers
        if self._num_streams not in (None, num_streams):
            allowed = f"{self._num_streams // self._num_ranks}, as when the state was saved in the middle of an epoch"
            raise InvalidRequest.of("num_workers", num_workers, allowed)
        places = epoch_order(self._rows_of_shards, self._seed, self._epoch, stream, num_streams, self._buffer_size)
        for position, sequence in self._sequences(places, self._trained.get(stream, 0)):
            yield Sample(sequence, stream, num_streams, position)

    def _sequences(self, places: list[Place], start: int) -> Iterator[tuple[int, RecordedSequence]]:
        """Those from position `start` on. A shard is read when its first row's turn comes, and what of it comes later
        is kept: at most a buffer and a shard of stored rows."""
        awaited = set(places[start:])
        kept: dict[Place, StoredRow | None] = {}
        for position in range(start, len(places)):
            shard, row = place = places[position]
            if place not in kept:
                for index, stored in enumerate(self._reader.stored_rows(shard)):
                    if (shard, index) in awaited:
                        kept[shard, index] = stored
            awaited.discard((shard, row))
            if (found := kept.pop(place)) is not None:
                yield position, self._reader.decode(found)

    def _order(self) -> dict[str, Any]:
        """What the order of samples follows from, but for the number of workers."""
        return {
            "job_sha256": self._reader.job_sha256,
            "num_shards": len(self._rows_of_shards),
            "seed": self._seed,
            "buffer_size": self._buffer_size,
            "rank": self._rank,
            "num_ranks": self._num_ranks,
        }
