"""Lets Ctrl-C and SIGTERM wait for a moment at which a computation can be left."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_Handler = Callable[[int, FrameType | None], object]
# What has come and waits, with its own handler.
_waiting: list[tuple[_Handler, int, FrameType | None]] = []


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait inside the context until `obey` is called, or until its end; a second one does not.

    A signal handler can run in Python code that native code has called. An exception raised there may be lost: then
    training continues as if nothing had come. A signal that is ignored, or whose action is the default, is left as it
    is. In a thread other than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with contextlib.ExitStack() as stack:
        stack.push(_end)
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, _waiting_for(handler))
                stack.callback(signal.signal, number, handler)
        yield


def _waiting_for(handler: _Handler) -> _Handler:
    def note(number: int, frame: FrameType | None) -> None:
        impatient = bool(_waiting)
        _waiting.append((handler, number, frame))
        if impatient:
            handler(number, frame)  # It still waits, for the case that what this raises is lost.

    return note


def _end(kind: type[BaseException] | None, *_: object) -> None:
    """Obeys what waits, unless it is obeyed just now."""
    if kind is None or issubclass(kind, Exception):
        obey()
    else:
        _waiting.clear()


def obey() -> None:
    """Calls the handler of the signal that waits, if one does; it may raise, as KeyboardInterrupt."""
    if _waiting:
        handler, number, frame = _waiting[-1]
        _waiting.clear()
        handler(number, frame)
