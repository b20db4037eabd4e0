"""What is served, as a verifier tells its aggregators and they tell clients."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zenray.api.service import ModelCard
from zenray.config import ZenrayConfig
from zenray.model.catalog import Catalog
from zenray.v1 import common_pb2

if TYPE_CHECKING:  # torch: not every process that names the model runs it
    from zenray.engine.engine import Engine


def served_name(name: str) -> str:
    """The name clients use: a catalog or preset name as it is, the file name of a path."""
    return Path(name).name if "/" in name else name


def served_model_info(engine: Engine, config: ZenrayConfig) -> common_pb2.ModelInfo:
    """The engine's model with what the catalog knows of it."""
    model = engine.model
    entry = Catalog.load().by_sha256(model.info.sha256) if model.info.sha256 else None
    return common_pb2.ModelInfo(
        name=served_name(config.model.name),
        architecture=model.config.architecture,
        weight_format=model.info.weight_format,
        num_parameters=model.info.num_parameters,
        context_length=engine.max_sequence_tokens,
        vocab_size=model.config.vocab_size,
        supports_infill=model.tokenizer.fim is not None,
        license=entry.license if entry else "",
        sha256=model.info.sha256,
    )


def model_key(info: common_pb2.ModelInfo) -> str:
    """One text for what decides the tokens: replicas with the same answer a request alike."""
    digest = f"@{info.sha256}" if info.sha256 else ""
    return f"{info.name}{digest} {info.weight_format} context={info.context_length} vocabulary={info.vocab_size}"


def model_card(info: common_pb2.ModelInfo, config: ZenrayConfig, created: int) -> ModelCard:
    """`info` with what this deployment allows and assumes. `created` is in seconds since the epoch."""
    return ModelCard(
        name=info.name,
        architecture=info.architecture,
        weight_format=info.weight_format,
        num_parameters=info.num_parameters,
        context_length=info.context_length,
        vocab_size=info.vocab_size,
        supports_infill=info.supports_infill,
        license=info.license,
        sha256=info.sha256,
        created=created,
        defaults=config.defaults,
        bounds=config.bounds,
    )
