"""Where a TF Serving is asked, and what came instead of an answer, in words: for REST and gRPC alike.

Used by predict, validate and push.
"""

import http.client
import io
import json
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernorm.errors import UsageError

if TYPE_CHECKING:
    import grpc

_FORMS = "Give http://HOST:PORT/v1/models/NAME for REST, or HOST:PORT for gRPC."
_PATH = re.compile(r"(.*/v1/models/([^/:]+))(?:/versions/(\d+)|/labels/([^/:]+))?(?::predict)?/?", re.ASCII)
# What a server that is starting or full says, or a proxy before it.
_PASSING = {"HTTP 429", "HTTP 502", "HTTP 503", "HTTP 504", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
# The start of HTTP/2: the length and the type of its first frame, SETTINGS.
_HTTP2 = re.compile("\0.{2}\4", re.DOTALL)
_SHOWN = 300


class NoAnswer(Exception):  # noqa: N818
    """What came instead of an answer; `str()` is the message, in one line.

    Attributes:
        code: of what a TF Serving answered: "HTTP 404", "NOT_FOUND"; empty if none was reached.
        passing: whether asking again may help.
    """

    def __init__(self, message: str, *, code: str = "", passing: bool = False) -> None:
        super().__init__(shortened(message))
        self.code, self.passing = code, passing or code in _PASSING


@dataclass(frozen=True)
class Endpoint:
    """One interface of a TF Serving.

    Attributes:
        address: HOST:PORT of gRPC, or http://HOST:PORT/v1/models/NAME of REST.
        rest: whether it is REST's.
        model: the model that a REST address names.
        version: the version that a REST address names.
        label: the label that a REST address names.
    """

    address: str
    rest: bool = False
    model: str | None = None
    version: int | None = None
    label: str | None = None

    @property
    def full(self) -> str:
        """The address with its version or label."""
        part = f"/versions/{self.version}" if self.version is not None else ""
        return self.address + (f"/labels/{self.label}" if self.label else part)


def read_endpoint(text: str, flag: str = "--endpoint") -> Endpoint:
    """Reads an address of a TF Serving.

    Raises:
        UsageError: it is none; `flag` gave it.
    """
    if not text.isascii() or re.search(r"[\s\x00-\x1f]", text):
        raise _mistyped(flag, f"{text!r}, with a space or a letter that no address has", _FORMS)
    if not text.startswith(("http://", "https://")):
        if text.startswith(("unix:", "dns:")):
            return Endpoint(text)
        if "/" in text:
            bare = re.sub(r"\w+:/+", "", text, count=1)
            fix = f"For REST, write http://{bare}. For gRPC, write HOST:PORT alone."
            raise _mistyped(flag, text, fix if _PATH.fullmatch(bare) else _FORMS)
        host, _, port = text.rpartition(":")
        if not host or not _is_port(port) or (":" in host and not re.fullmatch(r"\[.*\]", host)):
            raise _mistyped(flag, text, _FORMS)
        return Endpoint(text)
    try:
        parts = urllib.parse.urlsplit(text)
        named = bool(parts.hostname and parts.hostname.encode("idna")) and parts.port != 0
    except ValueError:  # a port that is none, or half an IPv6 address; UnicodeError is one too
        named = False
    found = _PATH.fullmatch(parts.path) if named else None
    if not found or parts.query or parts.fragment:
        raise _mistyped(flag, text, _FORMS)
    address = urllib.parse.urlunsplit((parts.scheme, parts.netloc, found[1], "", ""))
    return Endpoint(address, True, found[2], int(found[3]) if found[3] else None, found[4])


def ask_rest(address: str, body: Any = None, timeout: float = 30.0) -> Any:
    """Returns what a server answers to a GET, or to a POST of `body`, as JSON.

    Args:
        address: of a model, with what is asked about it.
        body: of the POST.
        timeout: seconds until the whole answer must be there.

    Raises:
        NoAnswer: it does not, or it refuses, or it names another address to POST to.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    way = _by_proxy(_rest_proxy(address))
    try:
        # An opener of its own: the shared one keeps the proxies of its first use.
        handlers = [_NoPostElsewhere(), *_handlers(time.monotonic() + timeout)]
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            content = response.read()
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            elsewhere = error.headers.get("Location") or "nowhere"
            raise NoAnswer(f"HTTP {error.code}, a redirect to {elsewhere}{way}") from None
        raise NoAnswer(_said(error) + way, code=f"HTTP {error.code}") from None
    except http.client.BadStatusLine as error:
        line = str(error)
        if isinstance(error, OSError) or not line.strip("'"):  # closed without an answer
            raise NoAnswer(f"no answer before the connection was closed{way}", passing=True) from None
        if _HTTP2.match(line):
            raise NoAnswer(f"this is a gRPC port: give HOST:PORT without http://, or the port of REST{way}") from None
        raise NoAnswer(f"no HTTP, but {line[:40]!r}{way}") from None
    except TimeoutError:
        raise NoAnswer(f"no whole answer within {timeout:g} s{way}", passing=True) from None
    except (OSError, http.client.HTTPException) as error:
        cut = isinstance(error, http.client.IncompleteRead)
        reason = "an answer that was cut" if cut else getattr(error, "reason", error) or type(error).__name__
        raise NoAnswer(f"{reason}{way}", passing=True) from None
    try:
        return json.loads(content)
    except ValueError:
        raise NoAnswer(f"an answer that is no JSON: {content[:40]!r}{way}") from None


class _NoPostElsewhere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect of a POST: urllib would ask there by a GET without the images."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        """Returns the request to go on with; None: the redirect is an error."""
        return None if req.get_method() == "POST" else super().redirect_request(req, *args)


class _Until(io.RawIOBase):
    """Reads what a socket receives until a moment of the monotonic clock; a socket's own timeout is of one read."""

    def __init__(self, connected: socket.socket, end: float) -> None:
        self._socket, self._end = connected, end
        self._raw = connected.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Tells that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads what is there, at most until the end."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._raw.readinto(buffer) or 0

    def close(self) -> None:
        """Lets the socket go."""
        self._raw.close()
        super().close()


def _handlers(end: float) -> list[urllib.request.BaseHandler]:
    """Returns handlers of HTTP and HTTPS whose answers must be there at a moment of the monotonic clock."""

    class Answer(http.client.HTTPResponse):
        def __init__(self, connected: socket.socket, *args: Any, **settings: Any) -> None:
            super().__init__(connected, *args, **settings)
            self.fp.close()
            self.fp = io.BufferedReader(_Until(connected, end))

    def connecting(kind: Callable[..., Any]) -> Callable[..., Any]:
        def connect(*args: Any, **settings: Any) -> Any:
            connection = kind(*args, **settings)
            connection.response_class = Answer
            return connection

        return connect

    class Http(urllib.request.HTTPHandler):
        def do_open(self, http_class: Any, *args: Any, **settings: Any) -> Any:
            return super().do_open(connecting(http_class), *args, **settings)

    class Https(urllib.request.HTTPSHandler):
        def do_open(self, http_class: Any, *args: Any, **settings: Any) -> Any:
            return super().do_open(connecting(http_class), *args, **settings)

    return [Http(), Https()]


def from_grpc(error: "grpc.RpcError", address: str) -> NoAnswer:
    """Words an error of gRPC as what came instead of an answer."""
    name, details = error.code().name, error.details() or "no details"
    way = _by_proxy(_grpc_proxy(address))
    if "HTTP/2" in details or "http1.x" in details:
        return NoAnswer(f"this is no gRPC port, but one of REST: give http://{address}/v1/models/NAME{way}")
    if name == "UNIMPLEMENTED":
        return NoAnswer(f"this server speaks gRPC, but is no TF Serving: {details}{way}")
    return NoAnswer(f"{details}{way}", code=name)


def shortened(text: str) -> str:
    """Returns a text in one line, shortened, without a full stop."""
    return " ".join(text.split())[:_SHOWN].rstrip(".")


def _said(error: urllib.error.HTTPError) -> str:
    """Returns what a server says with an HTTP error."""
    try:
        body = error.read()
    except (OSError, http.client.HTTPException):
        return "an answer that was cut"
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace") or str(error.reason)


def _rest_proxy(address: str) -> tuple[str, str] | None:
    parts = urllib.parse.urlsplit(address)
    proxy = urllib.request.getproxies().get(parts.scheme)
    return (f"{parts.scheme}_proxy", proxy) if proxy and not urllib.request.proxy_bypass(parts.hostname or "") else None


def _grpc_proxy(address: str) -> tuple[str, str] | None:
    """Returns the variable and the proxy that gRPC's core takes for an address."""
    host = address.rpartition(":")[0]
    without = [os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if os.environ.get(name)]
    if without and urllib.request.proxy_bypass_environment(host, {"no": without[0]}):  # type: ignore[attr-defined]
        return None
    names = ("grpc_proxy", "https_proxy", "http_proxy")
    return next(((name, os.environ[name]) for name in names if os.environ.get(name)), None)


def _by_proxy(found: tuple[str, str] | None) -> str:
    """Names a proxy, without the password in it."""
    if found is None:
        return ""
    variable, proxy = found
    return f" (asked through the proxy {proxy.rpartition('@')[2]} of {variable}; NO_PROXY names hosts to ask directly)"


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 2**16


def _mistyped(flag: str, received: str, fix: str) -> UsageError:
    return UsageError(f"{flag} takes the address of a TF Serving.", received, fix)
