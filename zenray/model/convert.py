"""A model file to weights packed for the kernels, once; afterwards they are mapped from a cache folder.

The folder `<home>/converted/<sha256 of the source>-<format>-<version>` holds weights.safetensors,
model.json and tokenizer.json. It is written aside and renamed, so it is complete or absent.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from filelock import FileLock

from zenray.config import WeightFormat, home
from zenray.errors import ModelFileError
from zenray.model.bpe import BpeTokenizer
from zenray.model.config import ModelConfig
from zenray.model.digest import digest
from zenray.model.formats import activation_dtype, pack_matrix, read_vector, shares_embedding
from zenray.model.gguf_source import GgufSource
from zenray.model.hf_source import HfSource, read_json
from zenray.model.source import ModelSource
from zenray.model.tensor_file import TensorFileWriter, map_tensors, release_mapped
from zenray.model.tokenizer_json import tokenizer_from_json
from zenray.model.weights import has_bias, matrix_names, matrix_parts, vector_names
from zenray.ops import PackedWeight, pack

Progress = Callable[[int, int, str], None]
"""Called with (done bytes, total bytes, what is being done)."""

CONVERTER_VERSION = 3
"""Raised whenever a converted folder of before would be read wrongly."""


def open_source(path: Path) -> ModelSource:
    """A GGUF file or a safetensors folder, by what is there.

    Raises:
        ModelFileError: neither, or unreadable.
    """
    if path.is_dir():
        return HfSource(path)
    if not path.exists():
        raise ModelFileError(f"{path} does not exist")
    if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"):
        raise ModelFileError(f"{path} is a pickle, which can run code when loaded and is never read; use safetensors")
    if path.suffix == ".safetensors":
        raise ModelFileError(f"{path}: give its folder, which holds config.json and tokenizer.json too")
    return GgufSource(path)


def converted_folder(path: Path, weight_format: WeightFormat, progress: Progress | None = None) -> tuple[Path, str]:
    """The folder of `path` converted to `weight_format`, and the SHA-256 of the source; converts on first use.

    Any number of processes may ask at once: one converts, the others wait for it.

    Raises:
        ModelFileError: whatever is wrong with the source, or too little disk.
    """
    if not path.exists():
        raise ModelFileError(f"{path} does not exist")
    report = None if progress is None else functools.partial(_report_hashing, progress, path.name)
    sha256 = digest(path, report).sha256
    root = home() / "converted"
    folder = root / f"{sha256}-{weight_format}-{version()}"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.exists():
                _convert_into(folder, path, weight_format, sha256, progress)
    return folder, sha256


def _report_hashing(progress: Progress, name: str, done: int, total: int) -> None:
    progress(done, total, f"hashing {name}")


def _convert_into(
    folder: Path, path: Path, weight_format: WeightFormat, sha256: str, progress: Progress | None
) -> None:
    for stale in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(stale, ignore_errors=True)  # of a process that died: the lock is ours
    source = open_source(path)
    tokenizer = source.tokenizer()
    _require_disk(source, weight_format, folder.parent)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    part.mkdir()
    try:
        digests = write_weights(source, weight_format, part / "weights.safetensors", progress)
        (part / "tokenizer.json").write_text(tokenizer.definition, encoding="utf-8")
        description = {
            "source": {"path": str(path), "sha256": sha256},
            "weight_format": weight_format,
            "config": source.config.to_json(),
            "tokenizer": tokenizer.to_json(),
            "sha256": digests,
        }
        (part / "model.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_weights(
    source: ModelSource, weight_format: WeightFormat, path: Path, progress: Progress | None = None
) -> dict[str, str]:
    """Packs every tensor of `source` into a safetensors file, a few matrices in memory at a time.

    Returns the digest of every vector and matrix (`tensors_digest`).
    """
    config = source.config
    vectors, matrices = list(vector_names(config)), list(matrix_names(config))
    if shares_embedding(source, weight_format):
        matrices.remove("head")
    sizes = {name: _source_bytes(source, name) for name in matrices}
    total, done = sum(sizes.values()), 0
    dtype = activation_dtype(weight_format)
    digests: dict[str, str] = {}
    with TensorFileWriter(path, max_tensors=len(vectors) + 7 * len(matrices)) as writer:
        for name in vectors:
            vector = read_vector(source, name, dtype)
            writer.add(name, vector)
            digests[name] = tensors_digest({"": vector})
        for name, tensors, digests[name] in _packed_in_order(source, matrices, weight_format):
            for key, tensor in tensors.items():
                writer.add(f"{name}/{key}", tensor)
            done += sizes[name]
            if progress is not None:
                progress(done, total, f"converting to {weight_format}")
    if progress is not None:
        progress(total, total, f"converting to {weight_format}")
    return digests


_MAX_PACKERS = 4


def _packed_in_order(
    source: ModelSource, names: Sequence[str], weight_format: WeightFormat
) -> Iterator[tuple[str, dict[str, torch.Tensor], str]]:
    """Packs a few matrices at a time, each in one thread, and yields their tensors and digests in order.

    Packing is many short operations: splitting each over two threads took 6 to 14 times as long on a busy
    machine (their barriers wait for a descheduled thread) and gained nothing on a quiet one.
    """
    threads_before = torch.get_num_threads()
    workers = min(len(os.sched_getaffinity(0)), _MAX_PACKERS)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        pending: deque[tuple[str, Future[tuple[dict[str, torch.Tensor], str]]]] = deque()
        for name in names:
            pending.append((name, pool.submit(_pack, source, name, weight_format)))
            if len(pending) > workers:
                ready, future = pending.popleft()
                yield ready, *future.result()
        for ready, future in pending:
            yield ready, *future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        # torch hands the last number set anywhere to threads that start later.
        torch.set_num_threads(threads_before)


def _pack(source: ModelSource, name: str, weight_format: WeightFormat) -> tuple[dict[str, torch.Tensor], str]:
    tensors = pack_matrix(source, name, weight_format).to_tensors()
    return tensors, tensors_digest(tensors)


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of names. Reads the bytes outside the GIL."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hasher.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


class ConvertedProvider:
    """A `WeightProvider` over a converted folder; tensors are views of the mapped file."""

    def __init__(self, folder: Path) -> None:
        description = read_json(folder / "model.json")
        self.config = ModelConfig.from_json(description["config"])
        self.dtype = activation_dtype(description["weight_format"])
        self._folder, self._sha256 = folder, description["sha256"]
        whole = [description[part] for part in ("config", "weight_format", "sha256")]
        self._digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        self._tokenizer = description["tokenizer"]
        self._vectors: dict[str, torch.Tensor] = {}
        self._matrices: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in map_tensors(folder / "weights.safetensors").items():
            matrix, slash, key = name.partition("/")
            if slash:
                self._matrices.setdefault(matrix, {})[key] = tensor
            else:
                self._vectors[name] = tensor
        self._embed = PackedWeight.from_tensors(self._matrices["embed"])

    @property
    def digest(self) -> str:
        return self._digest

    def check(self, name: str) -> None:
        """Reads all of a matrix's bytes. Raises ModelFileError if they are not those written at conversion."""
        name = self._stored_as(name)
        if tensors_digest(self._matrices[name]) != self._sha256[name]:
            raise ModelFileError(
                f"{self._folder / 'weights.safetensors'}: {name} has changed since it was written; check the disk, "
                "then delete the folder to convert again"
            )

    def release(self, name: str) -> None:
        for tensor in self._matrices[self._stored_as(name)].values():
            release_mapped(tensor)

    def matrix(self, name: str) -> PackedWeight:
        name = self._stored_as(name)
        return self._embed if name == "embed" else PackedWeight.from_tensors(self._matrices[name])

    def _stored_as(self, name: str) -> str:
        """A head that shares the embedding's table is stored once."""
        return "embed" if name == "head" and name not in self._matrices else name

    def vector(self, name: str) -> torch.Tensor:
        return self._vectors[name]

    def tokenizer(self) -> BpeTokenizer:
        """The tokenizer stored beside the weights."""
        definition = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
        return tokenizer_from_json(definition, self._tokenizer)


def _source_bytes(source: ModelSource, name: str) -> int:
    parts = list(matrix_parts(source.config, name))
    if has_bias(source.config, name):
        parts += [f"{part}.bias" for part in parts]
    return sum(source.tensor(part).num_bytes for part in parts)


_BYTES_PER_WEIGHT = {"float32": 4.0, "bf16": 2.0, "int8": 1.05, "int4": 0.6, "mixed": 1.05}


def _require_disk(source: ModelSource, weight_format: WeightFormat, folder: Path) -> None:
    """Before minutes of work, rather than after."""
    config = source.config
    tables = config.num_parameters + (config.vocab_size * config.hidden_size if config.tie_word_embeddings else 0)
    needed, free = int(tables * _BYTES_PER_WEIGHT[weight_format]), shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(
            f"{source.path}: converting to {weight_format} needs about {needed / 1e9:.1f} GB in {folder}, "
            f"{free / 1e9:.1f} GB are free; set ZENRAY_HOME to a larger disk"
        )


@functools.cache
def version() -> str:
    """The converter's version and a fingerprint of the packed layouts, so weights packed by other kernels
    are never read as if they were of these."""
    matrix = torch.linspace(-1, 1, 48 * 320, dtype=torch.float64).reshape(48, 320).sin().float()
    fingerprint = hashlib.sha256()
    for format_ in ("int8", "int4"):
        for name, tensor in pack(matrix, format_).to_tensors().items():
            fingerprint.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return f"v{CONVERTER_VERSION}-{fingerprint.hexdigest()[:8]}"
