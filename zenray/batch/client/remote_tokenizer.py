"""The served model's tokenizer, as a verifier sends it."""

from __future__ import annotations

from typing import Any

import grpc

from zenray.errors import ModelFileError
from zenray.model.tokenizer import Tokenizer
from zenray.model.tokenizer_json import tokenizer_from_bytes
from zenray.serving.channels import closing_loses, error_of
from zenray.v1 import verifier_pb2

MAX_TOKENIZER_BYTES = 128 * 2**20
"""Several times the largest vocabularies known."""
_TIMEOUT_S = 60.0


async def fetch_tokenizer(stub: Any) -> Tokenizer:
    """Asks a VerifierService. Raises Unavailable when it is lost, ModelFileError for what is no tokenizer."""
    data = bytearray()
    with closing_loses():
        call = stub.GetTokenizer(verifier_pb2.GetTokenizerRequest(), timeout=_TIMEOUT_S)
        try:
            async for answer in call:
                data += answer.part
                if len(data) > MAX_TOKENIZER_BYTES:
                    raise ModelFileError(f"the tokenizer has more than {MAX_TOKENIZER_BYTES} bytes")
        except grpc.RpcError as error:
            raise error_of(error) from error
        finally:
            call.cancel()
    return tokenizer_from_bytes(bytes(data))
