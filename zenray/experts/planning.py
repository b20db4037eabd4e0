"""Where experts go: at the start, after a loss, and when the load has moved. Pure functions of what was measured.

The rule is that of DeepSeek's expert parallelism load balancer (EPLB, github.com/deepseek-ai/EPLB): the busiest
experts of a layer get the redundant copies, each copy carries an equal part of its expert's load, and copies are
packed by load, heaviest first, into an equal number of slots per shard, so that memory stays even. Each layer is
balanced on its own, because each waits for its busiest shard. Beyond EPLB, a plan starts from what shards hold
already and exchanges copies only where that makes a layer's busiest shard noticeably less busy: every expert that
moves has to be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, inf
from statistics import fmean

from zenray.experts.placement import ExpertId, ExpertPlacement

LEAST_GAIN = 0.01
"""Of a shard's mean load: an exchange that relieves the busiest shard by less is not made."""

WORTHWHILE_GAIN = 0.1
"""Of the time layers wait for their busiest shard. Well above the noise of loads measured over some ten thousand
pairs. Moving reads every expert of a shard once at most, a step reads its chosen ones: a tenth saved is repaid within
10 * E / K steps, 80 for the top 2 of 16 experts."""


class NoPlacement(Exception):
    """The shards' memory does not hold one copy of every expert."""


def plan_placement(
    *,
    epoch: int,
    layers: Sequence[int],
    num_experts: int,
    capacity: Mapping[int, int | None],
    load: Mapping[ExpertId, float],
    redundant_experts: int,
    current: ExpertPlacement | None = None,
) -> ExpertPlacement:
    """A placement of every expert on the shards that are keys of `capacity`.

    capacity: experts a shard holds at most, over all layers; None is no bound.
    load: by expert, on one scale within a layer. A layer without any counts as evenly loaded.
    redundant_experts: copies per layer beyond one of each; as many as memory and the number of shards allow.
    current: what is held now; a plan of its own result moves nothing.

    Raises `NoPlacement`.
    """
    slots_by_layer = _deal_slots(len(layers), num_experts, capacity, redundant_experts)
    copies = {}
    for layer, slots in zip(layers, slots_by_layer, strict=True):
        shares = _shares(load, layer, num_experts)
        num_copies = _num_copies(shares, slots)
        packing = _Packing(slots, num_copies, [share / num for share, num in zip(shares, num_copies, strict=True)])
        if current is not None:
            packing.keep(current.copies[layer])
        packing.fill()
        packing.improve()
        copies[layer] = packing.holders()
    return ExpertPlacement(epoch, copies)


def plan_repair(
    placement: ExpertPlacement, capacity: Mapping[int, int | None], load: Mapping[ExpertId, float]
) -> dict[int, list[ExpertId]]:
    """What the shards that are keys of `capacity` must load so that nothing is missing: each lost expert once.

    The busiest go first, each to the shard least loaded in its layer; on ties to the one with the least to load
    already, then with the most room.

    Raises `NoPlacement`; a new plan with fewer redundant copies may still find room then.
    """
    room = {
        shard: inf if limit is None else limit - len(placement.held_by(shard))
        for shard, limit in sorted(capacity.items())
    }
    additions: dict[int, list[ExpertId]] = {}
    for layer, row in placement.copies.items():
        if all(row):
            continue
        shares = _shares(load, layer, len(row))
        busy = {**dict.fromkeys(room, 0.0), **_shard_loads(row, shares)}
        lost = [expert for expert, holders in enumerate(row) if not holders]
        for expert in sorted(lost, key=lambda expert: -shares[expert]):
            having_room = [shard for shard in room if room[shard] > 0]
            if not having_room:
                raise NoPlacement(_no_room(len(placement.missing), "lost experts", capacity))
            shard = min(having_room, key=lambda shard: (busy[shard], len(additions.get(shard, ())), -room[shard]))
            busy[shard] += shares[expert]
            room[shard] -= 1
            additions.setdefault(shard, []).append(ExpertId(layer, expert))
    return additions


def imbalance(placement: ExpertPlacement, load: Mapping[ExpertId, float]) -> float:
    """How much longer layers wait for their busiest shard than if all shared the load alike; 1 is perfect.

    The mean over layers of the busiest shard's load over the mean one, among shards that hold anything.
    """
    num_shards = max(1, len(placement.shards))
    return max(1.0, num_shards * _busiest_share(placement, load))


def is_worth_moving(current: ExpertPlacement, target: ExpertPlacement, load: Mapping[ExpertId, float]) -> bool:
    """Whether the change is worth reading the experts that move.

    It is when it places what is missing, makes use of another shard, has more copies, or relieves the busiest
    shards by `WORTHWHILE_GAIN`.
    """
    if current.missing or target.shards - current.shards or _total_copies(target) > _total_copies(current):
        return True
    return _busiest_share(target, load) < (1 - WORTHWHILE_GAIN) * _busiest_share(current, load)


@dataclass
class _Packing:
    """One layer under construction: how many copies each expert shall have, and the load one copy carries."""

    slots: Mapping[int, int]
    num_copies: Sequence[int]
    copy_loads: Sequence[float]
    held: dict[int, set[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.held = {shard: set() for shard in self.slots}

    def keep(self, holders_by_expert: Sequence[Sequence[int]]) -> None:
        """Takes over what shards hold, as far as copies and slots allow."""
        for expert, holders in enumerate(holders_by_expert):
            for shard in holders:
                if shard in self.held:
                    self.held[shard].add(expert)
        for expert in range(len(self.num_copies)):
            holders = [shard for shard in self.slots if expert in self.held[shard]]
            holders.sort(key=lambda shard: (len(self.held[shard]) - self.slots[shard], self._load(shard)), reverse=True)
            for shard in holders[: max(0, len(holders) - self.num_copies[expert])]:
                self.held[shard].remove(expert)
        for shard, num_slots in self.slots.items():
            if len(self.held[shard]) > num_slots:  # Those that stay are an even sample by load.
                ordered = sorted(self.held[shard], key=lambda expert: (-self.copy_loads[expert], expert))
                self.held[shard] = {ordered[slot * len(ordered) // num_slots] for slot in range(num_slots)}

    def fill(self) -> None:
        """Places the copies that are missing, heaviest first, each on the least loaded shard with a free slot.

        On ties the shard served last goes first. Experts of equal load then run there and back over the shards
        (0 1 2 2 1 0), so that neighbours, halves, even and odd ones are all spread: groups, however numbered.
        """
        recent = list(self.slots)
        for expert in sorted(range(len(self.num_copies)), key=lambda expert: -self.copy_loads[expert]):
            have = sum(expert in held for held in self.held.values())
            for _ in range(self.num_copies[expert] - have):
                free = [shard for shard in recent if len(self.held[shard]) < self.slots[shard]]
                lacking = [shard for shard in free if expert not in self.held[shard]]
                if lacking:
                    shard = min(lacking, key=self._load)
                    self.held[shard].add(expert)
                    recent.remove(shard)
                    recent.insert(0, shard)
                else:
                    self._make_room(expert, free)

    def improve(self) -> None:
        """Moves or exchanges copies of the busiest shard, the most relieving first, while that is worth it."""
        least_gain = LEAST_GAIN * fmean(map(self._load, self.slots))
        while True:
            loads = {shard: self._load(shard) for shard in self.slots}
            busiest = max(self.slots, key=loads.__getitem__)
            peak, expert, shard, back = min(
                (
                    (max(loads[busiest] - given, loads[shard] + given), expert, shard, back)
                    for expert, shard, back, given in self._exchanges(busiest)
                ),
                default=(loads[busiest], 0, busiest, -1),
            )
            if loads[busiest] - peak <= least_gain:
                return
            self.held[busiest].remove(expert)
            self.held[shard].add(expert)
            if back >= 0:
                self.held[shard].remove(back)
                self.held[busiest].add(back)

    def holders(self) -> tuple[tuple[int, ...], ...]:
        """By expert, the shards with a copy."""
        experts = range(len(self.num_copies))
        return tuple(tuple(shard for shard in sorted(self.slots) if expert in self.held[shard]) for expert in experts)

    def _load(self, shard: int) -> float:
        return fsum(self.copy_loads[expert] for expert in self.held[shard])  # exact, so independent of the order

    def _exchanges(self, giver: int) -> Iterator[tuple[int, int, int, float]]:
        """(expert, taker, expert given back or -1, load given) of every way to relieve `giver` without a
        second copy anywhere."""
        for taker in self.slots:
            new_there = self.held[giver] - self.held[taker]
            backs = [-1] if len(self.held[taker]) < self.slots[taker] else []
            backs += self.held[taker] - self.held[giver]
            for expert in new_there:
                for back in backs:
                    given = self.copy_loads[expert] - (self.copy_loads[back] if back >= 0 else 0.0)
                    if given > 0:
                        yield expert, taker, back, given

    def _make_room(self, expert: int, free: Sequence[int]) -> None:
        """Every shard with a free slot holds `expert` already: another shard hands one of its own over. Without
        one that could, the copy is left out; no expert's only copy is, since nobody holds that yet."""
        for shard in free:
            for other in self.slots:
                movable = self.held[other] - self.held[shard]
                if expert not in self.held[other] and movable:
                    moved = min(sorted(movable), key=lambda one: abs(self.copy_loads[one] - self.copy_loads[expert]))
                    self.held[other].remove(moved)
                    self.held[shard].add(moved)
                    self.held[other].add(expert)
                    return


def _deal_slots(
    num_layers: int, num_experts: int, capacity: Mapping[int, int | None], redundant_experts: int
) -> list[dict[int, int]]:
    """Slots of each shard in each layer: the same number for all shards, as far as their memory and the division
    allow, and over layers for each shard."""
    most = num_layers * num_experts  # A second copy on the same shard helps nobody.
    limits = {shard: most if limit is None else min(limit, most) for shard, limit in capacity.items()}
    if sum(limits.values()) < most:
        raise NoPlacement(_no_room(most, "experts", capacity))
    wanted = num_layers * (num_experts + redundant_experts)
    slots: list[dict[int, int]] = [{} for _ in range(num_layers)]
    next_layer = 0
    by_limit = sorted(limits, key=lambda shard: (limits[shard], shard))
    for position, shard in enumerate(by_limit):  # What the small ones cannot take is left to the large ones.
        dealt = min(limits[shard], wanted // (len(by_limit) - position))
        wanted -= dealt
        for layer in range(num_layers):
            extra = (layer - next_layer) % num_layers < dealt % num_layers
            slots[layer][shard] = dealt // num_layers + extra
        next_layer += dealt
    return [dict(sorted(row.items())) for row in slots]


def _num_copies(shares: Sequence[float], slots: Mapping[int, int]) -> list[int]:
    """One copy of each expert; each further slot goes to the one whose copies carry the most. At most one a shard."""
    num_copies = [1] * len(shares)
    num_shards = sum(num > 0 for num in slots.values())
    for _ in range(sum(slots.values()) - len(shares)):
        growing = [expert for expert, num in enumerate(num_copies) if num < num_shards]
        num_copies[max(growing, key=lambda expert: shares[expert] / num_copies[expert])] += 1
    return num_copies


def _shares(load: Mapping[ExpertId, float], layer: int, num_experts: int) -> list[float]:
    """Each expert's part of its layer's load, summing to 1; even where there is none."""
    loads = [load.get(ExpertId(layer, expert), 0.0) for expert in range(num_experts)]
    total = fsum(loads)
    return [one / total for one in loads] if total > 0 else [1 / num_experts] * num_experts


def _shard_loads(row: Sequence[Sequence[int]], shares: Sequence[float]) -> dict[int, float]:
    """What falls to each shard in one layer when copies share alike."""
    loads: dict[int, float] = {}
    for holders, share in zip(row, shares, strict=True):
        for shard in holders:
            loads[shard] = loads.get(shard, 0.0) + share / len(holders)
    return loads


def _busiest_share(placement: ExpertPlacement, load: Mapping[ExpertId, float]) -> float:
    """The busiest shard's part of a layer's load, as a mean over layers: what a step waits for."""
    busiest = [
        max(_shard_loads(row, _shares(load, layer, len(row))).values(), default=0.0)
        for layer, row in placement.copies.items()
    ]
    return fmean(busiest) if busiest else 0.0


def _total_copies(placement: ExpertPlacement) -> int:
    return sum(len(holders) for row in placement.copies.values() for holders in row)


def _no_room(num_experts: int, which: str, capacity: Mapping[int, int | None]) -> str:
    shown = ", ".join(
        f"shard {shard} {'any number' if limit is None else limit}" for shard, limit in sorted(capacity.items())
    )
    return f"{num_experts} {which} need a place; the shards' memory takes: {shown or 'none is left'}"
