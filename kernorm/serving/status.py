"""Whether a TF Serving has loaded a version of a model. Used by validate and push."""

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from kernorm.errors import UsageError
from kernorm.serving.endpoint import Endpoint, NoAnswer, ask_rest, from_grpc

# TFX's InfraValidator waits as long for a model to be loaded.
LOAD_SECONDS = 300.0
REQUEST_SECONDS = 30.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Server:
    """Where a version of a model is served; an interface without address is not asked."""

    model: str
    version: int
    grpc: str | None
    rest: str | None


def server_at(endpoint: Endpoint, model: str, version: int) -> Server:
    """Returns the server behind one interface; a REST address names the model itself."""
    if endpoint.rest:
        return Server(endpoint.model or model, version, None, endpoint.address)
    return Server(model, version, endpoint.address, None)


def version_state(server: Server) -> tuple[str, str]:
    """Returns the state of the version, as TF Serving names it, and what it says to that; empty if it has none.

    Raises:
        NoAnswer: one of the server's interfaces does not answer.
    """
    found = [ask(server) for ask, there in ((_by_grpc, server.grpc), (_by_rest, server.rest)) if there]
    return next((one for one in found if one[0] != "AVAILABLE"), found[0])


def wait_until_loaded(server: Server) -> None:
    """Waits until a server has loaded the version.

    Raises:
        UsageError: it does not within LOAD_SECONDS, or says that it cannot.
    """
    end = time.monotonic() + LOAD_SECONDS
    where, state, said = server.rest or server.grpc, "", ""
    while state != "AVAILABLE":
        try:
            state, said = version_state(server)
        except NoAnswer as error:
            if not error.passing:
                raise _not_loaded(server, f"{where}: {error}") from None
            state, said = "", str(error)
        if state == "END" and said:
            raise _not_loaded(server, f"{where}, which does not load it: {said}")
        if state != "AVAILABLE" and time.monotonic() > end:
            raise _not_loaded(server, f"{where}, {LOAD_SECONDS:.0f} s later: {said or state or 'no such version'}")
        if state != "AVAILABLE":
            time.sleep(_POLL_SECONDS)


def _not_loaded(server: Server, received: str) -> UsageError:
    return UsageError(
        f"A server must load version {server.version} of {server.model}.",
        received,
        "Does it read this models.config? See its log.",
    )


def _by_grpc(server: Server) -> tuple[str, str]:
    import grpc
    from tensorflow_serving.apis import model_service_pb2_grpc
    from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

    request = GetModelStatusRequest()
    set_spec(request.model_spec, server)
    with grpc.insecure_channel(server.grpc) as channel:
        try:
            status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=REQUEST_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return "", ""
            raise from_grpc(error, str(server.grpc)) from None
    for one in status.model_version_status:
        return ModelVersionStatus.State.Name(one.state), one.status.error_message
    return "", ""


def _by_rest(server: Server) -> tuple[str, str]:
    try:
        answer = ask_rest(f"{server.rest}/versions/{server.version}", timeout=REQUEST_SECONDS)
    except NoAnswer as error:
        if error.code == "HTTP 404":
            return "", ""
        raise
    with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
        one = answer["model_version_status"][0]
        return one["state"], one.get("status", {}).get("error_message", "")
    raise NoAnswer("an answer that is none of TF Serving's")


def set_spec(spec: Any, server: Server, signature: str = "") -> None:
    """Names the server's model and version, and a signature, in a request."""
    spec.name, spec.signature_name = server.model, signature
    spec.version.value = server.version
