"""Every error a caller can see has one gRPC status with details and one HTTP answer."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from zenray import errors
from zenray.api.status import DETAILS_KEY, as_zenray_error, grpc_status, http_status
from zenray.errors import FieldViolation, InvalidRequest, NotFound, Overloaded, Quantity, Unavailable, ZenrayError

ALL_ERRORS: list[ZenrayError] = [
    InvalidRequest([FieldViolation("sampling.temperature", -1, "0 to 10"), FieldViolation("prompt", "", "text")]),
    NotFound("model", "tiny-codr", ["tiny-coder"]),
    Overloaded("the queue of 64 is full", retry_ms=1500),
    Unavailable("draining"),
    errors.DeadlineExceeded("too late"),
    errors.ModelFileError("truncated"),
    errors.ConfigError("unknown key"),
    ZenrayError("internal error"),
]


def details(error: ZenrayError) -> list[object]:
    """What a client unpacks from the trailing metadata."""
    metadata = dict(grpc_status(error).trailing_metadata)
    status = status_pb2.Status.FromString(metadata[DETAILS_KEY])
    assert code_pb2.Code.Name(status.code) == error.grpc_status
    kinds = (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ResourceInfo)
    found = []
    for packed in status.details:
        message = next(kind() for kind in kinds if packed.Is(kind.DESCRIPTOR))
        packed.Unpack(message)
        found.append(message)
    return found


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_has_both_mappings_and_crosses_processes(error: ZenrayError) -> None:
    assert grpc_status(error).code is grpc.StatusCode[error.grpc_status]
    assert str(error) in grpc_status(error).details
    answer = http_status(error)
    assert answer.code == error.http_code
    assert answer.body["error"].keys() == {"message", "type", "param", "code"}
    json.dumps(answer.body)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (type(error), str(error))


def test_a_bad_request_lists_its_fields() -> None:
    (bad_request,) = details(ALL_ERRORS[0])
    assert [violation.field for violation in bad_request.field_violations] == ["sampling.temperature", "prompt"]
    assert bad_request.field_violations[0].description == "sampling.temperature is -1; allowed: 0 to 10"
    assert http_status(ALL_ERRORS[0]).body["error"]["param"] == "sampling.temperature"
    assert http_status(ALL_ERRORS[0]).body["error"]["type"] == "invalid_request_error"


def test_overload_says_when_to_retry() -> None:
    (retry,) = details(Overloaded("full", retry_ms=1500))
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 500_000_000)
    answer = http_status(Overloaded("full", retry_ms=1500))
    assert answer.code == 429
    assert answer.headers["retry-after"] == "2"
    assert http_status(Unavailable("starting")).headers["retry-after"] == "1"


def test_an_unknown_model_offers_the_nearest() -> None:
    (resource,) = details(ALL_ERRORS[1])
    assert (resource.resource_type, resource.resource_name) == ("model", "tiny-codr")
    assert "did you mean 'tiny-coder'?" in grpc_status(ALL_ERRORS[1]).details
    assert http_status(ALL_ERRORS[1]).body["error"]["code"] == "model_not_found"


def test_huge_errors_fit_in_the_headers_of_a_call() -> None:
    violations = [FieldViolation(f"prompt[{i}]" + "é" * 50, "ü" * 1000, "ö" * 1000) for i in range(1000)]
    status = grpc_status(InvalidRequest(violations))
    size = 3 * len(status.details.encode()) + sum(
        len(key) + 4 * len(value) // 3 for key, value in status.trailing_metadata
    )
    assert size < 8192


def test_lone_surrogates_in_a_message_are_escaped() -> None:
    error = NotFound("model", "\ud800", ["tiny"])
    grpc_status(error).details.encode("utf-8")
    json.dumps(http_status(error).body, ensure_ascii=False).encode("utf-8")


def test_quantities_show_their_unit_and_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidRequest.of("prompt", Quantity(9000, "tokens"), "at most 8191 tokens")))
    assert str(error) == "prompt is 9000 tokens; allowed: at most 8191 tokens"


def test_unexpected_errors_show_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    shown = as_zenray_error(RuntimeError("/secret/path"))
    assert shown.grpc_status == "INTERNAL"
    assert "/secret/path" not in str(shown)
    assert "/secret/path" in caplog.text
    assert as_zenray_error(TimeoutError()).grpc_status == "DEADLINE_EXCEEDED"


def test_the_details_are_what_grpc_status_reads() -> None:
    @dataclass
    class Call:
        """The parts of a finished call that `rpc_status.from_call` looks at."""

        status: object

        def code(self) -> grpc.StatusCode:
            return grpc_status(ALL_ERRORS[2]).code

        def details(self) -> str:
            return grpc_status(ALL_ERRORS[2]).details

        def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
            return grpc_status(ALL_ERRORS[2]).trailing_metadata

    assert rpc_status.from_call(Call(None)).details[0].Is(error_details_pb2.RetryInfo.DESCRIPTOR)
