"""The DraftPool deployment: replicas that hold a draft model.

It answers what it holds. Its replicas are registered like verifiers, so that drafting streams can find them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import grpc.aio
from ray import serve

from zenray.config import ZenrayConfig
from zenray.observe.logs import configure_logging
from zenray.serving.channels import SERVER_OPTIONS, bind
from zenray.serving.directory import Endpoint, Registration, node_ip
from zenray.serving.model_card import served_name
from zenray.v1 import common_pb2, draft_pb2, draft_pb2_grpc

if TYPE_CHECKING:
    from zenray.model.load import LoadedModel

log = logging.getLogger(__name__)

SERVICE_NAME = draft_pb2.DESCRIPTOR.services_by_name["DraftService"].full_name
_STOP_MARGIN_S = 1.0


class DraftServicer(draft_pb2_grpc.DraftServiceServicer):
    """Says which model the replica holds."""

    def __init__(self, model: common_pb2.ModelInfo | None, replica_id: str) -> None:
        self._answer = draft_pb2.GetDraftInfoResponse(model=model, replica_id=replica_id)

    async def GetDraftInfo(
        self, message: draft_pb2.GetDraftInfoRequest, context: grpc.aio.ServicerContext
    ) -> draft_pb2.GetDraftInfoResponse:
        return self._answer


class DraftPool:
    """A replica with `draft.model`, or with nothing when none is configured. `peer_host` as for `Verifier`."""

    async def __init__(self, config: dict[str, Any], peer_host: str | None) -> None:  # type: ignore[misc]  # Serve awaits it
        configure_logging()
        self._config = ZenrayConfig.model_validate(config)
        replica_id = serve.get_replica_context().replica_id.unique_id
        self._model = await asyncio.to_thread(load_draft_model, self._config)
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        servicer = DraftServicer(draft_info(self._model, self._config), replica_id)
        draft_pb2_grpc.add_DraftServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        address = bind(self._server, peer_host or node_ip())
        await self._server.start()
        self._registration = Registration(SERVICE_NAME, Endpoint(replica_id, address))
        await self._registration.start()
        log.info("draft pool replica %s holds %s at %s", replica_id, self._config.draft.model, address)

    async def pid(self) -> int:
        """The replica's process, for people and fault tests."""
        return os.getpid()

    async def __del__(self) -> None:
        if hasattr(self, "_registration"):
            await self._registration.stop()
            await self._server.stop(_STOP_MARGIN_S)


def load_draft_model(config: ZenrayConfig) -> LoadedModel | None:
    """The draft model, None when none is configured. Raises NotFound and ModelFileError as `build_model`."""
    if config.draft.model is None:
        return None
    from zenray.build import build_model

    # The draft is a model like any other, on the verifier's device and in its own weight format.
    model = config.model.model_copy(
        update={"name": config.draft.model, "weight_format": config.draft.weight_format, "preset_overrides": {}}
    )
    return build_model(config.model_copy(update={"model": model}))


def draft_info(model: LoadedModel | None, config: ZenrayConfig) -> common_pb2.ModelInfo | None:
    """What the pool says of its model."""
    if model is None or config.draft.model is None:
        return None
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
