"""The DraftPool deployment: replicas that hold the draft model, found by verifiers through the directory."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import grpc.aio
from ray import serve

from zenray.config import ZenrayConfig
from zenray.model.build import set_num_threads
from zenray.model.load import LoadedModel
from zenray.observe.logs import configure_logging
from zenray.serving.channels import bind
from zenray.serving.directory import Endpoint, Registration, node_ip
from zenray.serving.draft_service import SERVER_OPTIONS, SERVICE_NAME, DraftServicer
from zenray.serving.memory import settle
from zenray.serving.model_card import served_name
from zenray.speculative.draft_model import DraftModel, load_draft_model
from zenray.v1 import common_pb2, draft_pb2_grpc

log = logging.getLogger(__name__)

_STOP_MARGIN_S = 1.0


class DraftPool:
    """A replica with `draft.model`. `peer_host` as for `Verifier`."""

    async def __init__(self, config: dict[str, Any], peer_host: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        configure_logging()
        self._config = ZenrayConfig.model_validate(config)
        draft = self._config.draft
        replica_id = serve.get_replica_context().replica_id.unique_id
        set_num_threads(draft.num_threads)
        model = await asyncio.to_thread(load_draft_model, self._config)
        self._servicer = DraftServicer(
            DraftModel.from_settings(model, draft), draft_info(model, self._config), replica_id
        )
        self._servicer.start()
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS.items()))
        draft_pb2_grpc.add_DraftServiceServicer_to_server(self._servicer, self._server)  # type: ignore[no-untyped-call]
        address = bind(self._server, peer_host or node_ip())
        await self._server.start()
        self._registration = Registration(SERVICE_NAME, Endpoint(replica_id, address))
        await self._registration.start()
        settle()
        log.info("draft pool replica %s holds %s at %s", replica_id, draft.model, address)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises or does not return."""
        if not self._servicer.healthy:
            raise RuntimeError("the drafting thread has ended")

    async def pid(self) -> int:
        """The replica's process, for people and fault tests."""
        return os.getpid()

    async def __del__(self) -> None:
        """No verifier is told of this replica any more; their streams end in order and go elsewhere."""
        if hasattr(self, "_registration"):
            await self._registration.stop()
            await self._servicer.stop()
            await self._server.stop(_STOP_MARGIN_S)


def draft_info(model: LoadedModel, config: ZenrayConfig) -> common_pb2.ModelInfo:
    """What the pool says of its model."""
    assert config.draft.model is not None
    return common_pb2.ModelInfo(
        name=served_name(config.draft.model),
        architecture=model.config.architecture,
        weight_format=model.info.weight_format,
        num_parameters=model.info.num_parameters,
        context_length=model.config.max_position_embeddings,
        vocab_size=model.config.vocab_size,
        supports_infill=model.tokenizer.fim is not None,
        sha256=model.info.sha256,
    )
