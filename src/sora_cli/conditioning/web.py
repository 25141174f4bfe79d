"""Fetching pictures and videos from web servers, from the open internet only unless other addresses are allowed.

The addresses that a name resolves to are checked, and the one that was checked is dialled, so that a name cannot mean
something else the second time. Every redirect is checked again. Proxies of the environment are not used: they would
dial for us. Certificates are checked against the name.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies

from sora_cli.errors import SoraError, UsageError
from sora_cli.redaction import redact

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
#: Of a path and a query; other letters are escaped.
AS_IT_IS = "/?%:@!$&'()*+,;=~"
CREDENTIALS = "user names, passwords and tokens in addresses are not stored with clips; give the whole address again"
BLOCK_BYTES = 1 << 18
#: IPv6 addresses through which a translator reaches the IPv4 address in their last 32 bits (RFC 6052).
TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
#: Header of an answer -> the header that asks whether it still holds.
VALIDATORS = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
#: host, port -> addresses
Resolver = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class Limits:
    """Of one download. read_seconds: without a byte; total_seconds: from the first name that is asked for."""

    num_bytes: int = 1 << 30
    read_seconds: float = 30.0
    total_seconds: float = 600.0
    redirects: int = 5


def addresses_of(host: str, port: int) -> list[str]:
    """The IP addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is reachable from anywhere, also where it stands for an IPv4 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in TRANSLATED:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


@dataclass(frozen=True)
class _Place:
    """An address on the web, taken apart. target: what the server is asked for."""

    url: str
    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None

    @property
    def shown(self) -> str:
        return redact(self.url)


def fetch(
    url: str,
    file: BinaryIO,
    *,
    known: Mapping[str, str] | None = None,
    allow_private: bool = False,
    limits: Limits | None = None,
    resolver: Resolver = addresses_of,
) -> dict[str, str] | None:
    """Write what is at an http or https address to `file`; None when it is still what `known` describes.

    known: what an earlier call returned, the headers that tell versions apart. Raises UsageError for an address that is
    none or not public, SoraError for what cannot be had and what goes beyond the limits.
    """
    limits = limits or Limits()
    deadline = time.monotonic() + limits.total_seconds
    asking = {VALIDATORS[name]: value for name, value in (known or {}).items()}
    place = _place(url)
    for _ in range(limits.redirects + 1):
        with _errors(place, limits, deadline), _answer(place, asking, allow_private, limits, deadline, resolver) as got:
            location = got.getheader("Location")
            if got.status in REDIRECTS and location:
                place = _redirected(place, location)
                continue
            if got.status == 304 and known:
                return None
            if got.status != 200:
                words = {each.value: each.phrase for each in HTTPStatus}.get(got.status, "")
                raise SoraError(
                    f"{place.shown} cannot be fetched: the server says {got.status} {words}".rstrip(),
                    hint=CREDENTIALS if got.status in (401, 403) else None,
                )
            _receive(got, file, place, limits)
            if time.monotonic() >= deadline:  # without a length, being cut off looks like the end
                raise TimeoutError
            return {name: value for name in VALIDATORS if (value := got.getheader(name))}
    raise SoraError(f"{redact(url)} cannot be fetched: it leads to other addresses more than {limits.redirects} times")


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        if not host or not host.isprintable() or " " in host:
            raise ValueError
        target = quote(parts.path or "/", safe=AS_IT_IS)
        if parts.query:
            target += f"?{quote(parts.query, safe=AS_IT_IS)}"
    except ValueError:  # also of the idna codec
        # Not even redacted: it cannot be told what in it is a password.
        raise UsageError("an address of a reference is no valid URL", hint="the form is https://host/path") from None
    return _Place(url, parts.scheme, host, port, target, _authorization(parts))


def _authorization(parts: SplitResult) -> str | None:
    if parts.username is None:
        return None
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(words.encode()).decode()}"


def _redirected(place: _Place, location: str) -> _Place:
    """Where a redirect leads. Raises SoraError for another kind of address, and for one that is less safe."""
    try:
        url = urljoin(place.url, location)
        scheme = urlsplit(url).scheme
    except ValueError:
        url = scheme = ""
    if scheme not in PORTS or (place.scheme, scheme) == ("https", "http"):
        raise SoraError(f"{place.shown} leads to the {scheme or 'invalid'} address {redact(url)}, which is refused")
    found = _place(url)
    if found.authorization is None and (found.scheme, found.host, found.port) == (place.scheme, place.host, place.port):
        return _Place(url, scheme, found.host, found.port, found.target, place.authorization)
    return found


@contextlib.contextmanager
def _answer(
    place: _Place,
    asking: Mapping[str, str],
    allow_private: bool,
    limits: Limits,
    deadline: float,
    resolver: Resolver,
) -> Iterator[HTTPResponse]:
    """The answer of the server with its body still to be read. Raises OSError and HTTPException."""
    try:
        addresses = resolver(place.host, place.port)
    except (OSError, UnicodeError) as error:
        raise SoraError(
            f"{place.shown} cannot be fetched: the name {place.host} is not known, or there is no network"
        ) from error
    private = [] if allow_private else [each for each in addresses if not is_public(each)]
    if private:
        raise UsageError(
            f"{place.shown} is refused: its server has the address {private[0]}, which is not on the open internet",
            hint="--allow-private-urls fetches it all the same",
        )
    connection = (HTTPSConnection if place.scheme == "https" else HTTPConnection)(place.host, place.port)
    with _dialled(addresses, place, limits, deadline) as connected:
        connection.sock = connected
        headers = {"User-Agent": "sora-cli", "Accept-Encoding": "identity", **asking}
        if place.authorization:
            headers["Authorization"] = place.authorization
        connection.request("GET", place.target, headers=headers)
        with contextlib.closing(connection.getresponse()) as response:
            yield response


@contextlib.contextmanager
def _dialled(addresses: list[str], place: _Place, limits: Limits, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first of the addresses that takes it, which ends at the deadline. Raises OSError."""
    connected, failure = None, OSError("the name has no address")
    for address in addresses:
        try:
            seconds = min(limits.read_seconds, max(0.001, deadline - time.monotonic()))
            connected = socket.create_connection((address, place.port), timeout=seconds)
            break
        except OSError as error:
            failure = error
    if connected is None:
        raise failure
    connected.settimeout(limits.read_seconds)
    if place.scheme == "https":
        context = ssl.create_default_context()
        connected = context.wrap_socket(connected, server_hostname=place.host, do_handshake_on_connect=False)
    # Time-outs are of single reads, and a server may send a byte now and then for ever.
    watch = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, (connected,))
    watch.daemon = True
    watch.start()
    with connected:
        try:
            if isinstance(connected, ssl.SSLSocket):
                connected.do_handshake()
            yield connected
        finally:
            watch.cancel()


def _hang_up(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Of the plain socket: that of TLS would take its state from under the reader.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _receive(response: HTTPResponse, file: BinaryIO, place: _Place, limits: Limits) -> None:
    """Write the body. Raises SoraError for one that is too large, OSError for one that ends too early."""
    length = response.length  # of the rest, where the server says so
    done = 0
    while True:
        if max(done, length or 0) > limits.num_bytes:
            raise SoraError(
                f"{place.shown} is larger than {limits.num_bytes / 2**20:.0f} MiB",
                hint="download it yourself, and give the file",
            )
        block = response.read(BLOCK_BYTES)
        if not block:
            break
        file.write(block)
        done += len(block)
    if length is not None and done < length:
        raise OSError(f"the connection ended after {done} of {length} bytes")


@contextlib.contextmanager
def _errors(place: _Place, limits: Limits, deadline: float) -> Iterator[None]:
    """Turn errors of the network into one message."""
    try:
        yield
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        if time.monotonic() >= deadline:
            reason = f"it takes longer than {limits.total_seconds:g} s"
        elif isinstance(error, TimeoutError):
            reason = f"nothing came for {limits.read_seconds:g} s"
        elif isinstance(error, HTTPException):
            reason = f"the answer is not whole HTTP ({type(error).__name__})"
        else:
            reason = error.strerror or str(error) or type(error).__name__
        hint = "check the address, or download it yourself and give the file"
        if {place.scheme, "all"} & set(getproxies()):
            hint += "; proxies of the environment are not used for references"
        raise SoraError(f"{place.shown} cannot be fetched: {reason}", hint=hint) from error
