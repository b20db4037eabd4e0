"""A tiny Mixture-of-Experts on shards, for tests: streams to ask of it, their texts without shards, and its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from zenray.api.client import Client
from zenray.build import build_engine
from zenray.config_load import load_config
from zenray.engine.request import Final, GenerateRequest, Limits, Sampling
from zenray.serving.app import Platform
from zenray.serving.harness import eventually, is_idle, shard_processes, tiny_platform
from zenray.v1 import completion_pb2, experts_pb2

MODEL = (
    *("model.name=preset:tiny-moe", "model.context_length=2048", "engine.max_running_sequences=16"),
    *("speculation.drafters=[suffix]", "draft.num_replicas=0"),
)
"""What decides the texts, and drafts in most steps."""
SHARDS = ("experts.num_threads=1", "experts.shard_num_cpus=0.1")


@contextmanager
def sharded_platform(num_shards: int, *overrides: str) -> Iterator[Platform]:
    """A platform whose verifier spreads its experts; none of its shards is left behind."""
    with tiny_platform(*MODEL, *SHARDS, f"experts.num_shards={num_shards}", *overrides) as running:
        yield running
    assert not shard_processes()


@contextmanager
def whole_client(platform: Platform, num_shards: int) -> Iterator[Client]:
    """A client of an idle platform with all its shards, before and after."""
    with Client(platform.grpc_address) as client:
        eventually(lambda: is_idle(client) and is_whole(client, num_shards), "all is well before the test")
        yield client
        eventually(lambda: is_idle(client) and is_whole(client, num_shards), "all is well after the test")


def plain_texts(num_streams: int, num_tokens: int) -> list[str]:
    """The text of every stream, from one process that holds all experts."""
    engine = build_engine(load_config("tiny", None, [*MODEL, "speculation.drafters=[]"]))
    texts: dict[int, str] = {}
    handles = []
    for number in range(num_streams):
        sampling = Sampling(temperature=1.0, seed=number)
        request = GenerateRequest("plain", _prompt(number), sampling, Limits(num_tokens, ignore_eos=True))
        handles.append(engine.add(request))
    while engine.has_work:
        texts |= {handle: event.text for handle, event in engine.step() if isinstance(event, Final)}
    return [texts[handle] for handle in handles]


def open_stream(client: Client, number: int, num_tokens: int) -> Iterator[completion_pb2.CompleteEvent]:
    """Stream `number` as a client sees it."""
    message = completion_pb2.CompleteRequest(prompt_token_ids=completion_pb2.TokenIds(ids=_prompt(number)))
    message.sampling.seed, message.sampling.temperature = number, 1.0
    message.limits.max_tokens, message.limits.ignore_eos = num_tokens, True
    return client.complete(message)


def whole_text(events: list[completion_pb2.CompleteEvent]) -> str:
    """The text of a stream, which has to have started once and ended properly with every token."""
    assert sum(event.HasField("started") for event in events) == 1
    final = events[-1].final
    deltas = [event.delta for event in events if event.HasField("delta")]
    assert sum(delta.token_count for delta in deltas) == final.usage.completion_tokens > 0
    text = "".join(delta.text for delta in deltas)
    assert text == final.text
    return text


def experts_of(client: Client) -> experts_pb2.ExpertStatus:
    """Of the only verifier; empty while it does not answer."""
    found = client.load().experts
    return found[0].status if found else experts_pb2.ExpertStatus()


def remote_shards(status: experts_pb2.ExpertStatus) -> dict[int, experts_pb2.ExpertShard]:
    """The shards beside the verifier's own process, by number."""
    return {shard.shard: shard for shard in status.shards if shard.shard > 0}


def shard_process(client: Client, shard: int) -> psutil.Process:
    return psutil.Process(remote_shards(experts_of(client))[shard].report.pid)


def is_whole(client: Client, num_shards: int) -> bool:
    """Every shard is there and serves, and no expert is missing."""
    status = experts_of(client)
    states = [shard.state for shard in remote_shards(status).values() if shard.HasField("report")]
    return states == [experts_pb2.SHARD_STATE_SERVING] * (num_shards - 1) and all(
        holders for layer in status.layers for holders in layer.holders
    )


def _prompt(number: int) -> tuple[int, ...]:
    return tuple(f"def stream_{number}(".encode())
