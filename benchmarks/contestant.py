"""One engine in a process of its own, loaded once and asked again and again."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from zenray.bench.statistics import Arrival, RequestRecord

ANSWER_TIMEOUT_S = 600.0


@dataclass
class Contestant:
    """A driver process. `paused` between its turns, so that an idle engine's threads cost nobody."""

    key: str
    label: str
    command: list[str]
    measures: tuple[str, ...]
    versions: str = ""
    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    disturbed: int = 0

    def start(self, stack: ExitStack) -> None:
        """Loads the model. Raises RuntimeError with the driver's last words when that fails."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
        stack.callback(self._log.close)
        # Importing zenray sets how OpenMP waits, for itself. A peer gets the environment its authors expect: with
        # ours llama.cpp lost a third of its speed.
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        self._process = subprocess.Popen(
            self.command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        stack.callback(self._stop)
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self._answer()["ready"]
        self.versions = ready["version"]
        print(f"  {self.label}: {ready['version']}, loaded in {ready['load_s']:.0f} s, {ready['resident_mib']:.0f} MiB")

    def ask(
        self, prompts: list[str] | list[list[int]], max_tokens: int, cold: bool = True, ignore_eos: bool = True
    ) -> list[RequestRecord]:
        """One round of the driver; the streams' records, in seconds since its start."""
        self.signal(signal.SIGCONT)
        assert self._process.stdin is not None
        asked = {"prompts": prompts, "max_tokens": max_tokens, "cold": cold, "ignore_eos": ignore_eos}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        streams = self._answer()["streams"]
        self.signal(signal.SIGSTOP)
        records = []
        for prompt, stream in zip(prompts, streams, strict=True):
            arrivals = tuple(Arrival(ms / 1e3, 1, "") for ms in stream["token_ms"])
            ended_s = arrivals[-1].at_s if arrivals else 0.0
            records.append(RequestRecord(str(prompt), 0.0, ended_s, arrivals, stream["prompt_tokens"]))
            self.texts.setdefault(f"{max_tokens}:{prompt}", stream["text"])
        return records

    def signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self) -> dict[str, Any]:
        line = self._answers.get(timeout=ANSWER_TIMEOUT_S)
        answer = json.loads(line) if line else {"error": "the driver ended"}
        if "error" in answer:
            self._log.seek(0)
            tail = self._log.read().decode(errors="replace")[-1500:]
            raise RuntimeError(f"{self.label}: {answer['error']}\n{tail}")
        return dict(answer)

    def _stop(self) -> None:
        assert self._process.stdin is not None
        self.signal(signal.SIGCONT)
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()
