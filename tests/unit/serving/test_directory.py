"""Leases: an endpoint stays while it is renewed, and every change of a set has a new version."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from zenray.serving.directory import Directory, Endpoint, Leases

A, B = Endpoint("a", "127.0.0.1:1"), Endpoint("b", "127.0.0.1:2")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_lease_ends_unless_it_is_renewed() -> None:
    clock = Clock()
    leases = Leases(6.0, clock)
    assert leases.renew("verifier", A)
    assert leases.renew("verifier", B)
    clock.now_s = 5.0
    assert not leases.renew("verifier", B)
    clock.now_s = 7.0
    assert leases.expire()
    assert leases.snapshot("verifier") == (3, [B])
    assert not leases.expire()


def test_a_replica_that_moved_and_one_that_left_change_the_set() -> None:
    leases = Leases(6.0, Clock())
    leases.renew("verifier", A)
    moved = Endpoint("a", "127.0.0.1:9")
    assert leases.renew("verifier", moved)
    assert leases.snapshot("verifier")[1] == [moved]
    assert leases.remove("verifier", "a")
    assert not leases.remove("verifier", "a")
    assert not leases.remove("nobody", "a")
    assert leases.snapshot("draft") == (0, [])


def test_a_replica_that_takes_no_request_stays_and_says_why() -> None:
    leases = Leases(6.0, Clock())
    leases.renew("verifier", A)
    mute = replace(A, unavailable="an expert has no place")
    assert leases.renew("verifier", mute)
    assert not leases.renew("verifier", mute)
    assert leases.snapshot("verifier") == (2, [mute])


async def test_a_watcher_is_told_of_a_change_at_once_and_of_silence_after_its_timeout() -> None:
    directory = Directory()
    version, endpoints = await directory.watch("verifier", None, 10)
    assert endpoints == []
    waiting = asyncio.create_task(directory.watch("verifier", version, 10))
    await directory.renew("draft", B)
    assert not waiting.done()
    await directory.renew("verifier", A)
    newer, endpoints = await asyncio.wait_for(waiting, 5)
    assert endpoints == [A]
    assert newer != version
    assert await directory.watch("verifier", newer, 0.01) == (newer, [A])
    await directory.remove("verifier", "a")
    assert (await directory.watch("verifier", newer, 10))[1] == []
