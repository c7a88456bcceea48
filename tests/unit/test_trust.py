"""A company's own certificates: whom the edges of ESI and of the killmails' sources believe, and words of a bad file."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from esid import settings
from esid.assembly import killmails
from esid.daemon.roles import worker
from esid.errors import EsiUnavailable, SettingsError, Unreachable
from esid.esi.budget import Budget, Limits
from esid.esi.routes import Route
from esid.settings.trust import USUAL

ALLIANCE = Route("/alliances/{id}")
BODY = b'{"name": "a"}'


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def company(tmp_path: Path) -> Path:
    """The certificate of a company's authority; beside it that of a server on 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    authority = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Company", "-days", "2", *authority)
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (tmp_path / "names").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:esi.evetech.net,DNS:r2z2.zkillboard.com\nauthorityKeyIdentifier=keyid\n"
    )
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signing)
    return tmp_path / "ca.pem"


@pytest.fixture
def url(company: Path) -> Iterator[str]:
    """A server with a certificate of the company."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(company.with_name("server.pem"), company.with_name("server.key"))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answering) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Proxy(BaseHTTPRequestHandler):
    """Leads every CONNECT to one server, or says no."""

    heads: ClassVar[list[str]] = []
    port, code = 0, 200

    def do_CONNECT(self) -> None:
        self.heads.append(f"{self.path} {self.headers.get('Proxy-Authorization', '')}".strip())
        self.send_response(self.code)
        self.end_headers()
        if self.code != 200:
            return
        with socket.create_connection(("127.0.0.1", self.port)) as there:
            pairs = {self.connection: there, there: self.connection}
            while True:
                for each in select.select(list(pairs), (), (), 10)[0]:
                    if not (data := each.recv(65536)):
                        return
                    pairs[each].sendall(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy(url: str) -> Iterator[str]:
    """A proxy that leads every host to the server."""
    _Proxy.heads, _Proxy.port, _Proxy.code = [], int(url.rpartition(":")[2]), 200
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:p%40ss@127.0.0.1:{server.server_port}"
        server.shutdown()


def _ask(chosen: settings.Settings, tmp_path: Path) -> None:
    """Ask the server for an alliance of ESI's, and for a file of zKillboard's."""
    client = worker._open_client(chosen, Budget(tmp_path / "budget", Limits(max_rps=0)))
    client.get(ALLIANCE, id=1)
    source = killmails.open_feed_source(chosen)
    assert source.get("/1.json") == BODY
    source.close()


@pytest.mark.parametrize("name", ["ESID_CA_FILE", *USUAL])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_companys_certificates_are_believed(name: str, is_folder: bool, url: str, company: Path, tmp_path: Path) -> None:
    if is_folder:
        folder = tmp_path / "authorities"
        folder.mkdir()
        (folder / "ca.pem").write_bytes(company.read_bytes())
        subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
        company = folder
    environ = {"ESI_BASE_URL": url, "ESID_FEED_URL": url, "ESID_DATA_DIR": str(tmp_path / "data"), name: str(company)}
    _ask(settings.read(environ), tmp_path)


def test_others_are_not_and_the_setting_is_named(url: str, tmp_path: Path) -> None:
    chosen = settings.read({"ESI_BASE_URL": url, "ESID_FEED_URL": url, "ESID_DATA_DIR": str(tmp_path / "data")})
    client = worker._open_client(chosen, Budget(tmp_path / "budget", Limits(max_rps=0)))
    with pytest.raises(Unreachable, match=r"certificate is not trusted .*ESID_CA_FILE"):
        client.get(ALLIANCE, id=1)
    source = killmails.open_feed_source(chosen)
    with pytest.raises(EsiUnavailable, match=rf"^{url}/1\.json: its certificate is not trusted .*ESID_CA_FILE"):
        source.get("/1.json")
    source.close()


def test_ours_counts_before_those_of_all_programs(company: Path) -> None:
    usual = dict.fromkeys(USUAL, str(company))
    for name in USUAL:
        chosen = settings.read(usual)
        assert (chosen.esid_ca_file, chosen.origins["ESID_CA_FILE"]) == (str(company), f"environment, {name}")
        usual.pop(name)
    link = company.with_name("link.pem")
    link.symlink_to(company)
    chosen = settings.read({"ESID_CA_FILE": str(link), "SSL_CERT_FILE": "/not/there"})
    assert (chosen.esid_ca_file, chosen.origins["ESID_CA_FILE"]) == (str(link), "environment")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read: No such file"), (b"", "no certificates"), (b"x" * 99, "no certificates")]
)
@pytest.mark.parametrize("name", ["ESID_CA_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_file_without_certificates_is_one_line(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"^ESID_CA_FILE \(.*\): {file} .*{words}"):
        settings.read({name: str(file)})


def test_a_folder_without_certificates_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="openssl rehash"):
        settings.read({"ESID_CA_FILE": str(tmp_path)})


@pytest.mark.parametrize(
    ("address", "cause"),
    [("127.0.0.1:1", "Connection refused"), ("nosuch.invalid", "Name or service not known")],
)
def test_a_source_that_cannot_be_reached_is_one_cause_and_the_whole_url(address: str, cause: str, tmp_path: Path) -> None:
    chosen = settings.read({"ESID_FEED_URL": f"https://{address}/part", "ESID_DATA_DIR": str(tmp_path)})
    source = killmails.open_feed_source(chosen)
    with pytest.raises(EsiUnavailable) as caught:
        source.get("/1.json")
    assert str(caught.value) == f"https://{address}/part/1.json: {cause}"
    source.close()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_leads_to_esi_and_to_killmails(name: str, proxy: str, company: Path, tmp_path: Path) -> None:
    environ = {"ESI_CONTACT": "me@mine.org", "ESID_DATA_DIR": str(tmp_path), "ESID_CA_FILE": str(company), name: proxy}
    _ask(settings.read(environ), tmp_path)
    word = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert _Proxy.heads == [f"esi.evetech.net:443 {word}", f"r2z2.zkillboard.com:443 {word}"]


def test_a_proxy_that_refuses_is_told_as_that(proxy: str, company: Path, tmp_path: Path) -> None:
    _Proxy.code = 407
    chosen = settings.read({"ESID_DATA_DIR": str(tmp_path), "ESID_CA_FILE": str(company), "HTTPS_PROXY": proxy})
    client = worker._open_client(chosen, Budget(tmp_path / "budget", Limits(max_rps=0)))
    with pytest.raises(
        Unreachable, match=r"the proxy 127\.0\.0\.1:\d+ does not lead on to esi.evetech.net:443: HTTP/1.. 407"
    ):
        client.get(ALLIANCE, id=1)
    source = killmails.open_feed_source(chosen)
    with pytest.raises(EsiUnavailable, match=r"https://r2z2\.zkillboard\.com/1\.json: .*407"):
        source.get("/1.json")
    source.close()


def test_whom_no_proxy_names_is_asked_without_one_and_so_is_this_machine() -> None:
    chosen = settings.read({"HTTPS_PROXY": "proxy.mine.org:3128", "NO_PROXY": "evetech.net,.everef.net"})
    assert chosen.proxy("https://esi.evetech.net") == chosen.proxy("https://data.everef.net/x") == ""
    assert chosen.proxy("https://r2z2.zkillboard.com") == "http://proxy.mine.org:3128"
    assert chosen.proxy("https://127.0.0.1:5") == chosen.proxy("http://r2z2.zkillboard.com") == ""


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:443", "http://", "http://a:b"])
def test_a_proxy_that_is_not_spoken_to_is_refused_where_it_would_count(proxy: str) -> None:
    with pytest.raises(SettingsError, match=r"HTTPS_PROXY .*http:// alone"):
        settings.read({"HTTPS_PROXY": proxy})
    settings.read({"HTTPS_PROXY": proxy, "NO_PROXY": "*"})


def test_the_password_of_a_proxy_is_a_secret() -> None:
    assert "s3cret-word" in settings.read({"HTTPS_PROXY": "http://u:s3cret-word@127.0.0.1:1"}).secrets
