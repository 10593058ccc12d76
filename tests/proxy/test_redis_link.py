"""The worker's connection to Redis: addresses, order, failures, scripts."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway_admin.lib.embedded_state import Endpoint
from gateway_admin.supervisor.embedded import EmbeddedValkey, wait_until_ready
from proxy.redis_link import LinkDown, RedisLink
from tests.proxy import own_valkey
from tests.proxy.own_valkey import OwnValkey
from tests.proxy.replica import free_port

PASSWORD = "p@ss/word"


@pytest.fixture
def server() -> Iterator[OwnValkey]:
    with own_valkey.running() as found:
        yield found


@pytest.fixture
async def link(server: OwnValkey) -> AsyncIterator[RedisLink]:
    found = RedisLink(server.url, 1.0)
    await found.start()
    yield found
    await found.stop()


def write_certificate(home: Path) -> None:
    """A self-signed certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (home / "cert.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (home / "key.pem").write_bytes(private)


@pytest.fixture(scope="module")
def everywhere() -> Iterator[dict[str, str]]:
    """Addresses of one server; those with TLS lack the port (see `tls`)."""
    with tempfile.TemporaryDirectory(prefix="gwl-") as name:
        home = Path(name)
        write_certificate(home)
        server = EmbeddedValkey(home / "data", Endpoint(free_port(), PASSWORD), throwaway=True)
        server.prepare()
        config = home / "data" / "valkey.conf"
        config.write_text(config.read_text().replace(PASSWORD, f'"{PASSWORD}"'))
        command = [*server.command(), "--unixsocket", str(home / "s.sock")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        quoted = "p%40ss%2Fword"
        plain = f"redis://:{quoted}@127.0.0.1:{server.endpoint.port}/3"
        server.endpoint = Endpoint(server.endpoint.port, quoted)
        try:
            wait_until_ready([server], 20)
            yield {
                "tcp": plain,
                "user": plain.replace("://:", "://default:"),
                "unix": f"unix://:{quoted}@{home}/s.sock?db=3",
                "tls": f"rediss://:{quoted}@127.0.0.1:TLS/3?ssl_ca_certs={home}/cert.pem",
                "untrusted": f"rediss://:{quoted}@127.0.0.1:TLS/3",
                "home": str(home),
                "port": str(server.endpoint.port),
                "stranger": plain.replace(quoted, "wrong"),
            }
        finally:
            process.kill()
            process.wait()


@pytest.fixture
async def tls(everywhere: dict[str, str]) -> AsyncIterator[str]:
    """Port of a TLS end in front of the server: the wheel's Valkey is built without."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, ahead = await asyncio.open_connection("127.0.0.1", int(everywhere["port"]))
        await asyncio.gather(_pipe(reader, ahead), _pipe(back, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{everywhere['home']}/cert.pem", f"{everywhere['home']}/key.pem")
    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
    yield str(server.sockets[0].getsockname()[1])
    server.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("kind", ["tcp", "user", "unix", "tls"])
async def test_every_kind_of_address_works(everywhere: dict[str, str], tls: str, kind: str) -> None:
    link = RedisLink(everywhere[kind].replace("TLS", tls), 1.0)
    await link.start()
    assert link.up, link.reason
    await link.call("SET", f"by-{kind}", "1")
    assert await link.call("CLIENT", "INFO")
    assert b" db=3 " in await link.call("CLIENT", "INFO")
    await link.stop()


@pytest.mark.parametrize(
    ("kind", "word"), [("stranger", "WRONGPASS"), ("untrusted", "certificate")]
)
async def test_a_server_that_cannot_be_used_is_down(
    everywhere: dict[str, str], tls: str, kind: str, word: str
) -> None:
    link = RedisLink(everywhere[kind].replace("TLS", tls), 1.0)
    await link.start()
    assert not link.up
    assert word in link.reason
    with pytest.raises(LinkDown, match=word):
        await link.call("PING")
    await link.stop()


async def test_replies_find_their_callers(link: RedisLink) -> None:
    values = await asyncio.gather(*(link.call("ECHO", str(number)) for number in range(500)))
    assert values == [str(number).encode() for number in range(500)]


async def test_a_caller_that_gave_up_does_not_shift_the_others(link: RedisLink) -> None:
    waiting = [asyncio.create_task(link.call("ECHO", str(number))) for number in range(50)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert found[1::2] == [str(number).encode() for number in range(1, 50, 2)]


async def test_errors_are_one_exception_or_a_count(link: RedisLink) -> None:
    await link.call("SET", "text", "x")
    with pytest.raises(LinkDown, match="not an integer"):
        await link.call("INCR", "text")
    assert link.send("INCR", "text")
    await link.call("PING")
    assert link.errors == 1
    assert link.up


async def test_a_script_is_sent_again_when_the_server_forgot_it(link: RedisLink) -> None:
    script = link.script("return {KEYS[1], ARGV[1]}")
    assert await script(["k"], ["v"]) == [b"k", b"v"]
    await link.call("SCRIPT", "FLUSH")
    assert await asyncio.gather(*(script(["k"], [n]) for n in range(5))) == [
        [b"k", str(n).encode()] for n in range(5)
    ]


async def test_a_server_that_comes_back_is_found(link: RedisLink, server: OwnValkey) -> None:
    heard = asyncio.Event()
    link.on_up.append(heard.set)
    server.stop()
    await asyncio.wait_for(_turned(link, up=False), 10)
    with pytest.raises(LinkDown):
        await link.call("PING")
    assert not link.send("PING")
    assert link.down_since is not None
    server.start()
    await asyncio.wait_for(heard.wait(), 10)
    assert await link.call("PING") == b"PONG"
    assert link.down_since is None


async def test_a_silent_server_is_left_after_the_time_out(server: OwnValkey) -> None:
    link = RedisLink(server.url, 0.2)
    await link.start()
    server.pause()
    found = await asyncio.gather(*(link.call("PING") for _ in range(9)), return_exceptions=True)
    assert {type(one) for one in found} == {LinkDown}
    assert "no answer" in str(found[0])
    assert not link.up
    server.resume()
    await asyncio.wait_for(_turned(link, up=True), 10)
    assert await link.call("ECHO", "x") == b"x"
    await link.stop()


async def _turned(link: RedisLink, *, up: bool) -> None:
    while link.up is not up:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
