"""KerasTuner's own way to spread a search: a chief with the oracle, workers that ask it, and three variables.

Its limits (keras-tuner 1.4.8): no password and no encryption, so only in a private network; a worker that is lost keeps
its trial until one with the same id is started; all must see the same --reports-dir. A killed chief goes on with
--resume, and its workers, who have waited, with it.
"""

import os
import time
from collections.abc import Callable
from concurrent import futures
from typing import TYPE_CHECKING, Literal

from kernorm.errors import UsageError

if TYPE_CHECKING:
    from keras_tuner.distribute.oracle_client import OracleClient

    from tuner.base import ResumableOracle


IP, PORT, ID = VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
# KerasTuner would wait an hour, also for a chief that has ended.
REACH_SECONDS = 300
_POLL_SECONDS = 0.5


def role() -> Literal["chief", "worker"] | None:
    """Returns what KerasTuner's variables make of this process; None without them.

    Raises:
        UsageError: some of them are set and others not, or the port is none.
    """
    given = {name: os.environ.get(name, "") for name in VARIABLES}
    if not any(given.values()):
        return None
    missing = [name for name, value in given.items() if not value]
    if missing:
        here = next(name for name, value in given.items() if value)
        raise UsageError(
            f"A search over many processes needs {', '.join(VARIABLES)}.",
            f"{here} without {missing[0]}",
            "Set all of them, or none.",
        )
    if not (given[PORT].isdecimal() and 0 < int(given[PORT]) < 65536):
        raise UsageError(f"{PORT} is a port.", f"{given[PORT]!r}", "Give for example 8790.")
    return "chief" if "chief" in given[ID] else "worker"


def address() -> str:
    """Returns the chief's address, host:port."""
    return f"{os.environ[IP]}:{os.environ[PORT]}"


def serve(oracle: "ResumableOracle") -> None:
    """Answers workers until the oracle has no more trials and every worker knows.

    Raises:
        UsageError: the address cannot be listened at.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address())
    except RuntimeError:
        raise UsageError(
            "A chief listens at an address of its machine.",
            f"{address()}, which is taken or elsewhere",
            f"Give another {IP} or {PORT}.",
        ) from None
    server.start()
    try:
        while oracle.ongoing_trials or oracle.tuner_ids or not servicer.stop_triggered:
            time.sleep(_POLL_SECONDS)
    finally:
        server.stop(grace=5).wait()


def ask_chief(work: Callable[["OracleClient"], None]) -> None:
    """Does work with a client of the chief.

    Raises:
        UsageError: there is no chief, or it has been lost.
    """
    import grpc
    from keras_tuner.src.distribute.oracle_client import OracleClient

    with grpc.insecure_channel(address()) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=REACH_SECONDS)
        except grpc.FutureTimeoutError:
            raise UsageError(
                "A worker needs its chief.",
                f"nothing at {address()} for {REACH_SECONDS} s",
                f"Start the same command with {ID}=chief; a search that has ended needs no more workers.",
            ) from None
    try:
        work(OracleClient(oracle=None))
    except grpc.RpcError as error:
        told = error.details() if isinstance(error, grpc.Call) else error
        raise UsageError(
            "A worker needs its chief.",
            f"{address()} was lost: {told}",
            "Start the chief again with --resume, then this worker with the same id.",
        ) from None
