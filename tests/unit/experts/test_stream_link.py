"""One shard over real sockets, served by a thread: right rows, and every way in which a link can end."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from zenray.config import ExpertSettings
from zenray.experts import wire
from zenray.experts.link import ExpertCall, ShardLost, ShardRefused
from zenray.experts.placement import ExpertId
from zenray.experts.shard import compute
from zenray.experts.store import ExpertStore
from zenray.experts.stream import Connection, HungUp, Listener, dial, proof
from zenray.experts.stream_link import StreamLink, connect
from zenray.model.load import OpenedWeights, open_preset
from zenray.ops import backend_for

Serve = Callable[..., Any]
MakeCall = Callable[..., ExpertCall]
Expected = Callable[[ExpertCall], torch.Tensor]
BINDS = ("unix", "127.0.0.1", "::1")
FIRST_TWO = (ExpertId(0, 0), ExpertId(0, 1))


@pytest.mark.parametrize("bind", BINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_those_computed_here(bind: str, dtype: torch.dtype, serve: Serve, make_call: MakeCall) -> None:
    provider = open_preset("tiny-moe", dtype=dtype)
    weights = OpenedWeights(provider.config, provider, backend_for("cpu", dtype, "reference"))
    link = serve(bind=bind, weights=weights).link()
    assert link.transport == ("unix" if bind == "unix" else "tcp")
    store = ExpertStore(provider)
    wanted = [ExpertId(layer, expert) for layer in (0, 1) for expert in (0, 3, 7)]
    store.load(wanted)
    link.load(wanted)
    for seed, (num_rows, layer) in enumerate([(1, 0), (2, 1), (3000, 0), (1, 1)]):
        call = make_call(seed, experts=(0, 3, 7), num_rows=num_rows, layer=layer)
        call = ExpertCall(9, layer, call.expert_ids, call.counts, call.rows_P, call.x_ND.to(dtype))
        link.send(call)
        assert torch.equal(link.receive(), compute(store, weights.ops, call))


def test_rows_that_are_no_contiguous_memory_arrive_too(serve: Serve, make_call: MakeCall, expected: Expected) -> None:
    link = serve().link()
    link.load(FIRST_TWO)
    call = make_call(num_rows=4)
    strided = ExpertCall(1, 0, call.expert_ids, call.counts, call.rows_P, call.x_ND.t().contiguous().t())
    assert not strided.x_ND.is_contiguous()
    link.send(strided)
    assert torch.equal(link.receive(), expected(call))


def test_a_report_counts_what_was_done(serve: Serve, make_call: MakeCall) -> None:
    link = serve(shard_memory_mib=1).link()
    link.load(FIRST_TWO)
    for seed in range(3):
        link.send(make_call(seed, num_rows=5))
        link.receive()
    report = link.report()
    assert (report.shard, report.pid, report.num_experts) == (1, os.getpid(), 2)
    assert (report.calls, report.pairs) == (3, 30)
    assert report.weight_bytes == 2 * 3 * 64 * 64 * 4
    assert report.capacity == 2**20 // (3 * 64 * 64 * 4)
    assert report.busy_ms > 0
    link.drop(FIRST_TWO[:1])
    assert link.report().num_experts == 1


def test_a_shard_says_no_and_goes_on(serve: Serve, make_call: MakeCall, expected: Expected) -> None:
    link = serve(shard_memory_mib=0.1).link()
    link.load(FIRST_TWO)
    with pytest.raises(ShardRefused, match="no memory"):
        link.load([ExpertId(1, 5)])
    for wrong in (ExpertId(7, 0), ExpertId(0, 8), ExpertId(0, -1)):
        with pytest.raises(ShardRefused, match="has no expert"):
            link.load([wrong])
    link.send(make_call(experts=(0, 5)))
    with pytest.raises(ShardRefused, match="does not hold"):
        link.receive()
    link.send(make_call())
    assert torch.equal(link.receive(), expected(make_call()))


def test_experts_are_loaded_while_others_compute(
    serve: Serve, gated: Any, make_call: MakeCall, expected: Expected
) -> None:
    link = serve(gated).link()
    link.load(FIRST_TWO)
    link.send(make_call())
    assert gated.entered.wait(60)
    link.load([ExpertId(1, 4)])
    assert link.report().num_experts == 3
    gated.gate.set()
    assert torch.equal(link.receive(), expected(make_call()))
    link.send(make_call(1, experts=(4,), layer=1))
    assert torch.equal(link.receive(), expected(make_call(1, experts=(4,), layer=1)))


@pytest.mark.parametrize("num_rows", [1, 5000])
def test_replies_of_aborted_steps_are_not_taken_for_later_ones(
    num_rows: int, serve: Serve, make_call: MakeCall, expected: Expected
) -> None:
    """5000 rows are more than sockets buffer: were the leader to send before it reads, both would wait for ever."""
    link = serve().link()
    link.load(FIRST_TWO)
    for seed in range(4):
        link.send(make_call(seed, num_rows=num_rows))
    link.send(make_call(experts=(5,), num_rows=num_rows))
    link.send(make_call(9, num_rows=num_rows))
    assert torch.equal(link.receive(), expected(make_call(9, num_rows=num_rows)))


def test_the_reply_of_an_aborted_step_may_lie_there_for_a_day(
    serve: Serve, gated: Any, make_call: MakeCall, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a sign of life, which must not be taken for that of a shard that needs a day."""
    alive, show_life = threading.Event(), Connection.show_life
    now_s = 0.0

    def show(connection: Connection) -> None:
        show_life(connection)
        if connection.busy:
            alive.set()

    monkeypatch.setattr(Connection, "show_life", show)
    link = serve(gated).link()
    link.load(FIRST_TWO)
    monkeypatch.setattr("zenray.experts.stream_link.time.monotonic", lambda: now_s)
    alive.clear()
    link.send(make_call(1))
    assert gated.entered.wait(60)
    assert alive.wait(60)
    gated.gate.set()
    now_s += 86_400
    link.send(make_call(2))
    assert torch.equal(link.receive(), expected(make_call(2)))


def test_a_long_computation_is_not_taken_for_a_dead_shard(
    serve: Serve, gated: Any, make_call: MakeCall, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate opens only when more signs of life were due than fit into the silence that is allowed."""
    signs, show_life = 0, Connection.show_life

    def count(connection: Connection) -> None:
        nonlocal signs
        show_life(connection)
        signs += connection.busy
        if signs > 12:
            gated.gate.set()

    monkeypatch.setattr(Connection, "show_life", count)
    link = serve(gated, silence_timeout_ms=1000).link()
    link.load(FIRST_TWO)
    link.send(make_call())
    assert torch.equal(link.receive(), expected(make_call()))
    assert signs > 12


def test_a_long_load_is_not_taken_for_a_dead_shard(
    serve: Serve, toy: OpenedWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    signs, show_life, loaded = 0, Connection.show_life, threading.Event()

    def count(connection: Connection) -> None:
        nonlocal signs
        show_life(connection)
        signs += connection.busy
        if signs > 12:
            loaded.set()

    monkeypatch.setattr(Connection, "show_life", count)
    monkeypatch.setattr(toy.provider, "check", lambda name: loaded.wait(60))
    link = serve(silence_timeout_ms=1000).link()
    link.load(FIRST_TWO)
    assert link.report().num_experts == 2
    assert signs > 12


def test_a_computation_without_end_is_given_up(serve: Serve, gated: Any, make_call: MakeCall) -> None:
    link = serve(gated, call_timeout_s=0.2).link()
    link.load(FIRST_TWO)
    link.send(make_call())
    with pytest.raises(ShardLost, match="did not finish in time, though it is alive"):
        link.receive()


def test_a_lost_link_stays_lost_for_the_same_reason(serve: Serve, make_call: MakeCall) -> None:
    served = serve()
    link = served.link()
    served.server.close()
    served.thread.join(60)
    for operation in (link.report, lambda: link.send(make_call()), lambda: link.load(FIRST_TWO), link.report):
        with pytest.raises(ShardLost) as lost:
            operation()
        assert lost.value.shard == 1
        reason = lost.value.reason
    link.close()
    link.close()
    with pytest.raises(ShardLost) as lost:
        link.drop(FIRST_TWO)
    assert lost.value.reason == reason


def test_hanging_up_wakes_a_waiting_call_and_ends_the_shard(serve: Serve, gated: Any, make_call: MakeCall) -> None:
    served = serve(gated)
    link = served.link()
    link.load(FIRST_TWO)
    link.send(make_call())
    outcome: list[BaseException] = []
    waiting = threading.Thread(target=lambda: outcome.append(raised_by(link.receive)))
    waiting.start()
    assert gated.entered.wait(60)
    link.close()
    waiting.join(60)
    assert isinstance(outcome[0], ShardLost)
    assert "closed" in str(outcome[0])
    gated.gate.set()
    served.thread.join(60)
    assert not served.thread.is_alive()


def test_strangers_are_dropped_and_the_leader_is_served(
    serve: Serve, make_call: MakeCall, expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zenray.experts.shard_server._STRANGER_TIMEOUT_S", 0.2)
    served = serve(bind="127.0.0.1")
    silent = dial(served.server.address, 10)
    for noise in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".ljust(64), os.urandom(4096), wire.ALIVE):
        with dial(served.server.address, 10) as stranger:
            stranger.sendall(noise)
    with pytest.raises(ShardLost, match="no hello"):
        connect(served.server.address, "another token", served.weights.provider.digest, 1, served.settings)
    with pytest.raises(ShardLost, match="no hello"):
        connect(served.server.address, served.token, served.weights.provider.digest, 2, served.settings)
    link = served.link()
    link.load(FIRST_TWO)
    link.send(make_call())
    assert torch.equal(link.receive(), expected(make_call()))
    silent.close()


def test_other_weights_are_refused(serve: Serve) -> None:
    served = serve()
    with pytest.raises(ShardRefused, match="other weights"):
        connect(served.server.address, served.token, "another digest", 1, served.settings)
    served.thread.join(60)
    assert not served.thread.is_alive(), "it is of no use to the only one who has the token"


def test_an_address_where_nobody_listens_is_a_lost_shard(serve: Serve, tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/nobody", "tcp:127.0.0.1:1", "tcp:nonsense", ""):
        with pytest.raises(ShardLost, match="no hello"):
            connect(address, "token", "digest", 1, ExpertSettings())


def test_only_this_user_reaches_a_socket_and_nothing_of_it_stays(serve: Serve) -> None:
    served = serve()
    folder = Path(served.server.address.removeprefix("unix:")).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    served.link()
    assert not folder.exists(), "a shard that met its leader listens no more"


Behave = Callable[[Connection, Connection], None]


@pytest.fixture
def impostor() -> Iterator[Callable[[Behave], StreamLink]]:
    """`impostor(behave, token="token")`: a link to a peer that has the token, unless told otherwise, and then does what
    `behave(data, control)` does."""
    with ExitStack() as ends:

        def start(behave: Behave, token: str = "token") -> StreamLink:
            listener = Listener("unix")

            def run() -> None:
                peers: dict[str, Connection] = {}
                try:
                    for role in ("data", "control"):
                        peers[role] = Connection(listener.accept(60))
                        peers[role].receive_text(peers[role].receive_header())
                        answer = {"digest": "digest", "proof": proof(token, f"shard {role} 1")}
                        peers[role].send(wire.encode_control(0, answer))
                    behave(peers["data"], peers["control"])
                except (OSError, HungUp):
                    pass
                finally:
                    for peer in peers.values():
                        peer.close()

            thread = threading.Thread(target=run, daemon=True)
            ends.callback(thread.join, 60)
            ends.callback(listener.close)
            thread.start()
            link = connect(listener.address, "token", "digest", 1, ExpertSettings(silence_timeout_ms=300))
            ends.callback(link.close)
            return link

        yield start


def test_a_peer_without_the_token_gets_no_calls(impostor: Any) -> None:
    with pytest.raises(ShardLost, match="does not have the token"):
        impostor(lambda data, control: None, token="a guess")


def answering(frame: bytes) -> Behave:
    """Reads a call, answers it with these bytes, and waits for the leader to hang up."""

    def behave(data: Connection, control: Connection) -> None:
        header = data.receive_header()
        data.receive_text(header)
        data.receive_into(memoryview(bytearray(header.num_rows * header.width * header.dtype.itemsize)))
        data.send(frame)
        data.receive_header()

    return behave


CALL = wire.Header(wire.Kind.CALL, 1, 0, 2, 4, 2, 64, 64, 1, 1)
WRONG_ANSWERS = {
    "noise": os.urandom(64),
    "half a header": wire.ALIVE[:20],
    "signs of life, then nothing": wire.ALIVE * 3,
    "half the rows": wire.encode_rows(CALL, torch.zeros(4, 64)) + bytes(100),
    "rows of another call": wire.encode_rows(CALL._replace(number=2), torch.zeros(4, 64)) + bytes(4 * 64 * 4),
    "too few rows": wire.encode_rows(CALL, torch.zeros(3, 64)) + bytes(3 * 64 * 4),
    "wider rows": wire.encode_rows(CALL, torch.zeros(4, 65)) + bytes(4 * 65 * 4),
    "rows of another type": wire.encode_rows(CALL, torch.zeros(4, 64).bfloat16()) + bytes(4 * 64 * 2),
    "a control message": wire.encode_control(1, {}),
}


@pytest.mark.parametrize("answer", WRONG_ANSWERS)
def test_a_broken_answer_loses_the_shard(answer: str, impostor: Any, make_call: MakeCall) -> None:
    link = impostor(answering(WRONG_ANSWERS[answer]))
    link.send(make_call())
    with pytest.raises(ShardLost):
        link.receive()


def test_a_shard_that_reads_nothing_is_lost_while_sending(impostor: Any, make_call: MakeCall) -> None:
    link = impostor(lambda data, control: control.receive_into(memoryview(bytearray(1))))
    with pytest.raises(ShardLost, match="no sign of life"):
        link.send(make_call(num_rows=50_000))


def test_a_cut_in_mid_answer_loses_the_shard_at_once(impostor: Any, make_call: MakeCall) -> None:
    link = impostor(lambda data, control: data.receive_into(memoryview(bytearray(1))))
    with pytest.raises(ShardLost, match=r"hung up|reset|Broken pipe"):
        send_and_receive(link, make_call())


@pytest.mark.parametrize("answer", [wire.encode_control(1, {}), wire.encode_control(2, {"report": {}}), b"x" * 64])
def test_a_broken_report_loses_the_shard(answer: bytes, impostor: Any) -> None:
    def behave(data: Connection, control: Connection) -> None:
        control.receive_text(control.receive_header())
        control.send(answer)
        control.receive_header()

    with pytest.raises(ShardLost):
        impostor(behave).report()


@pytest.mark.parametrize("wrong", ["noise", "another width", "another type", "a row that is not there"])
def test_a_shard_hangs_up_on_a_leader_it_does_not_understand(wrong: str, serve: Serve, make_call: MakeCall) -> None:
    served = serve()
    data, _control = shake_hands(served)
    call = make_call()
    rows_P = call.rows_P + 7 if wrong == "a row that is not there" else call.rows_P
    x_ND = {"another width": torch.zeros(2, 63), "another type": call.x_ND.double()}.get(wrong, call.x_ND)
    frame = wire.encode_call(1, ExpertCall(1, 0, call.expert_ids, call.counts, rows_P, x_ND))
    data.send(os.urandom(64) if wrong == "noise" else frame, bytes(x_ND.nbytes))
    with pytest.raises((HungUp, ConnectionResetError)):
        data.receive_header()
    served.thread.join(60)
    assert not served.thread.is_alive()


def shake_hands(served: Any) -> tuple[Connection, Connection]:
    """A leader's two connections, to misuse."""
    connections = []
    for role in ("data", "control"):
        connection = Connection(dial(served.server.address, 10))
        hello = {"role": role, "rows": "stream", "digest": served.weights.provider.digest}
        hello["proof"] = proof(served.token, f"leader {role} 1")
        connection.send(wire.encode_control(0, hello))
        connection.receive_text(connection.receive_header())
        connections.append(connection)
    return connections[0], connections[1]


def send_and_receive(link: StreamLink, call: ExpertCall) -> torch.Tensor:
    link.send(call)
    return link.receive()


def raised_by(operation: Callable[[], object]) -> BaseException:
    with pytest.raises(ShardLost) as raised:
        operation()
    return raised.value
