"""Fetching from web servers: which addresses are dialled, what is followed, and where it ends."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from web_server import Page, Web, serve_pages

from sora_cli.conditioning.web import Limits, fetch, is_public
from sora_cli.errors import SoraError, UsageError

BODY = b"some bytes" * 1000


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_pages() as server:
        server.pages["/a"] = Page(BODY)
        yield server


def get(url: str, **options: Any) -> bytes:
    file = io.BytesIO()
    fetch(url, file, **{"allow_private": True, **options})
    return file.getvalue()


def failure(url: str, **options: Any) -> str:
    with pytest.raises(SoraError) as caught:
        get(url, **options)
    return caught.value.message


def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("fec0::1", False),
        ("ff0e::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("::127.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::93.184.216.34", True),
        ("64:ff9b:1::10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("2002:5db8:d822::", True),
        ("2001:0:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_names_of_private_addresses_are_refused(web: Web) -> None:
    url = f"http://pictures.example:{web.port}/a"
    for addresses in (["127.0.0.1"], ["93.184.216.34", "::ffff:10.0.0.1"]):
        with pytest.raises(UsageError) as caught:
            get(url, allow_private=False, resolver=lambda host, port, found=addresses: found)
        assert "not on the open internet" in caught.value.message
        assert "--allow-private-urls" in (caught.value.hint or "")
    assert "not on the open internet" in failure(f"{web.url}/a", allow_private=False)
    assert not web.requests, "nothing was asked for"


def test_the_checked_address_is_dialled(web: Web) -> None:
    asked = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    assert get(f"http://pictures.example:{web.port}/a", resolver=resolver) == BODY
    assert asked == [("pictures.example", web.port)], "once, and not again to connect"
    assert web.requests[0][1]["Host"] == f"pictures.example:{web.port}"


def test_redirects_are_checked_again(web: Web) -> None:
    web.pages["/moved"] = Page(status=302, headers={"Location": "/a"})
    assert get(f"{web.url}/moved") == BODY
    names = {"public.example": "93.184.216.34", "private.example": "10.0.0.1"}
    web.pages["/inside"] = Page(status=307, headers={"Location": "http://private.example/secret"})
    # The first address stands for a public one: only what is looked up after it counts.
    seen = iter([["127.0.0.1"], [names["private.example"]]])

    def first_is_public(address: str) -> bool:
        return address == "127.0.0.1"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sora_cli.conditioning.web.is_public", first_is_public)
        message = failure(
            f"http://public.example:{web.port}/inside", allow_private=False, resolver=lambda host, port: next(seen)
        )
    assert message.startswith("http://private.example/secret is refused: its server has the address 10.0.0.1")


def test_where_redirects_may_not_lead(web: Web) -> None:
    for location in ("file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://x/", "http://[", "data:image/png;base64,AA"):
        web.pages["/moved"] = Page(status=301, headers={"Location": location})
        assert "which is refused" in failure(f"{web.url}/moved"), location
    web.pages["/round"] = Page(status=302, headers={"Location": "/round"})
    assert "more than 5 times" in failure(f"{web.url}/round")
    assert len([path for path, _ in web.requests if path == "/round"]) == 6
    web.pages["/empty"] = Page(status=302)
    assert "302 Found" in failure(f"{web.url}/empty")


def test_what_servers_refuse(web: Web) -> None:
    assert "404 Not Found" in failure(f"{web.url}/absent.png")
    web.pages["/locked"] = Page(status=403)
    with pytest.raises(SoraError) as caught:
        get(f"{web.url}/locked")
    assert "not stored with clips" in (caught.value.hint or "")
    web.pages["/odd"] = Page(status=599)
    assert failure(f"{web.url}/odd").endswith("599")


def test_who_is_not_there() -> None:
    with serve_pages() as web:
        url = f"{web.url}/a"
    assert "refused" in failure(url).lower()

    def unknown(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    assert "the name nowhere.example is not known" in failure("http://nowhere.example/a", resolver=unknown)


def test_a_server_that_hangs(web: Web) -> None:
    web.pages["/slow"] = Page(hangs=True)
    start = time.monotonic()
    assert "nothing came for 0.2 s" in failure(f"{web.url}/slow", limits=Limits(read_seconds=0.2))
    # Reads come back all the time, and the whole has an end all the same.
    web.pages["/drip"] = Page(drips=True)
    assert "longer than 0.3 s" in failure(f"{web.url}/drip", limits=Limits(total_seconds=0.3))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("length", [-1, None])
def test_too_large(web: Web, length: int | None) -> None:
    """Also when the server does not say how much comes."""
    web.pages["/large"] = Page(b"x" * (3 << 20), length=length)
    assert "larger than 2 MiB" in failure(f"{web.url}/large", limits=Limits(num_bytes=2 << 20))
    assert len(get(f"{web.url}/large", limits=Limits(num_bytes=3 << 20))) == 3 << 20


def test_cut_off(web: Web) -> None:
    web.pages["/half"] = Page(BODY, length=len(BODY) + 10)
    assert f"ended after {len(BODY)} of {len(BODY) + 10} bytes" in failure(f"{web.url}/half")


def test_versions(web: Web) -> None:
    web.pages["/v"] = Page(BODY, headers={"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"})
    file = io.BytesIO()
    known = fetch(f"{web.url}/v", file, allow_private=True)
    assert known == {"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    assert fetch(f"{web.url}/v", file, known=known, allow_private=True) is None
    assert web.requests[-1][1]["If-Modified-Since"] == known["Last-Modified"]
    web.pages["/v"] = Page(b"new", headers={"ETag": '"2"'})
    assert fetch(f"{web.url}/v", file, known=known, allow_private=True) == {"ETag": '"2"'}


def test_credentials(web: Web) -> None:
    """They go to their own server, and are in no message."""
    host = f"127.0.0.1:{web.port}"
    assert get(f"http://ann:p%40ss@{host}/a") == BODY
    assert web.requests[-1][1]["Authorization"] == "Basic YW5uOnBAc3M="
    web.pages["/near"] = Page(status=302, headers={"Location": "/a"})
    get(f"http://ann:secret@{host}/near")
    assert "Authorization" in web.requests[-1][1]
    web.pages["/far"] = Page(status=302, headers={"Location": f"http://localhost:{web.port}/a"})
    get(f"http://ann:secret@{host}/far", resolver=here)
    assert "Authorization" not in web.requests[-1][1]
    message = failure(f"http://ann:secret@{host}/absent?api_key=hidden&size=2")
    assert message == f"http://{host}/absent?api_key=...&size=2 cannot be fetched: the server says 404 Not Found"
    assert web.requests[-1][0] == "/absent?api_key=hidden&size=2"


def test_no_addresses() -> None:
    for url in (
        "http://",
        "http://a:port/x",
        "http://[::1/x",
        "http://a b/x",
        f"http://{'a' * 70}.b/",
        "http://ann:a/b@c",
    ):
        with pytest.raises(UsageError, match="no valid URL"):
            get(url)


def test_letters_are_escaped(web: Web) -> None:
    web.pages["/a%20b/%C3%A9.png?q=%C3%BC"] = Page(BODY)
    assert get(f"{web.url}/a b/é.png?q=ü") == BODY


def test_proxies_are_not_used(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert get(f"{web.url}/a") == BODY
    with pytest.raises(SoraError) as caught:
        get(f"http://127.0.0.1:{web.port}/a", limits=Limits(num_bytes=1), resolver=lambda host, port: [])
    assert "proxies of the environment are not used" in (caught.value.hint or "")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of pictures.example with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    made = [str(folder / name) for name in ("key.pem", "cert.pem")]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=pictures.example", "-addext", "subjectAltName=DNS:pictures.example",
         "-keyout", made[0], "-out", made[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text("".join(Path(name).read_text() for name in made))
    return both


def test_certificates_are_of_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_pages(certificate) as web:
        web.pages["/a"] = Page(BODY)
        url = f"https://pictures.example:{web.port}/a"
        assert "certificate verify failed" in failure(url, resolver=here).lower(), "nobody vouches for it"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert get(url, resolver=here) == BODY
        message = failure(f"https://other.example:{web.port}/a", resolver=here)
        assert "not valid for 'other.example'" in message
        web.pages["/down"] = Page(status=302, headers={"Location": f"http://pictures.example:{web.port}/a"})
        assert "leads to the http address" in failure(f"https://pictures.example:{web.port}/down", resolver=here)
