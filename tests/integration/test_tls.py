"""Redis behind TLS: who is believed, what is said of who is not, and a worker over it from one end to the other."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fsm import App, Client, StoreError
from fsm.store import embedded
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer
from tests.integration.machines import Journal
from tests.integration.test_connection import free_port
from workers.worker import TransitionWorker

if TYPE_CHECKING:
    from collections.abc import Iterator

# Not by its number: that is another host.
NAMES = "subjectAltName=DNS:localhost"


@dataclass
class Secure:
    """A server that speaks TLS and wants to see a certificate, and where certificates are."""

    port: int
    home: Path

    def url(self, host: str = "localhost", **options: str) -> str:
        ours = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "ours.pem", "ssl_keyfile": "ours.key", **options}
        # A name of a file is one of this directory; "" leaves an option out.
        given = {name: self.home / value if "." in value else value for name, value in ours.items() if value}
        return f"rediss://{host}:{self.port}/0?" + "&".join(f"{name}={value}" for name, value in given.items())


def openssl(home: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=home, check=True, capture_output=True)


def authority(home: Path, name: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl(home, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}")


def certificate(home: Path, name: str, *key: str, names: str = NAMES) -> None:
    """Make a key, and a certificate for it that `ca` signed."""
    (home / f"{name}.ext").write_text(names, encoding="ascii")
    new = key or ("-nodes",)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *new)
    openssl(home, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext")
    openssl(home, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    if shutil.which("openssl") is None:
        pytest.skip("!!! TLS IS NOT TESTED: there is no openssl to make certificates with")
    home = tmp_path_factory.mktemp("tls")
    for name in ("ca", "stranger"):
        authority(home, name)
    certificate(home, "server")
    certificate(home, "ours")
    certificate(home, "locked", "-passout", "pass:0pen")
    port = free_port()
    options = {
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(home / "server.pem"),
        "tls-key-file": str(home / "server.key"),
        "tls-ca-cert-file": str(home / "ca.pem"),
        "tls-auth-clients": "yes",
    }
    for program in embedded._candidates():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FSM_SERVER", str(program))
            try:
                server = EmbeddedServer(options).__enter__()
            except StoreError:
                continue  # it was built without TLS
        try:
            yield Secure(port, home)
        finally:
            server.__exit__(None, None, None)
        return
    pytest.skip("!!! TLS IS NOT TESTED: no server program here was built with it")


def test_events_go_over_tls_from_one_end_to_the_other(secure: Secure) -> None:
    with Client(secure.url(), namespace="default") as client:
        journal = client.start_fsm(Journal, "j")
        job = journal.transition("note", 1)
        TransitionWorker(App([Journal]), secure.url(), ["fsm"]).work(burst=True, logging_level="WARNING")

        assert job.result().ok
        assert journal.state().payload == [1]


def test_a_key_may_have_a_password(secure: Secure) -> None:
    with connect(secure.url(ssl_certfile="locked.pem", ssl_keyfile="locked.key", ssl_password="0pen")) as client:
        assert client.ping() is True


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"ssl_ca_certs": "stranger.pem"}, id="another authority"),
        pytest.param({"ssl_ca_certs": ""}, id="that of the system"),
        pytest.param({"ssl_certfile": "", "ssl_keyfile": ""}, id="no certificate of ours"),
        pytest.param({"ssl_certfile": "stranger.pem", "ssl_keyfile": "stranger.key"}, id="one that is not known"),
    ],
)
def test_who_is_not_believed_is_told_so(
    secure: Secure, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsm.store.connection._REPEATS", 0)

    with pytest.raises(StoreError, match=r"does not agree with us on TLS|broke the connection") as raised:
        connect(secure.url(**options))
    assert "ssl_ca_certs" in str(raised.value)


def test_a_certificate_of_another_host_is_not_believed_unless_one_says_so(
    secure: Secure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsm.store.connection._REPEATS", 0)
    with pytest.raises(StoreError, match="does not agree with us on TLS"):
        connect(secure.url("127.0.0.1"))
    for lax in ({"ssl_check_hostname": "false"}, {"ssl_cert_reqs": "none", "ssl_ca_certs": ""}):
        with connect(secure.url("127.0.0.1", **lax)) as client:
            assert client.ping() is True


def test_a_server_that_speaks_tls_is_not_spoken_to_without(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsm.store.connection._REPEATS", 0)
    url: Any = secure.url().partition("?")[0].replace("rediss:", "redis:")

    with pytest.raises(StoreError, match="see that it runs, and whether its port wants rediss://"):
        connect(url)


@pytest.mark.parametrize(
    ("url", "checks"),
    [
        ("rediss://h", True),
        ("rediss://h?ssl_ca_certs=/ca.pem", True),
        ("rediss://h?ssl_check_hostname=false", False),
        ("rediss://h?ssl_cert_reqs=none", None),
        ("redis://h", None),
    ],
)
def test_the_host_is_checked_whatever_the_default_of_redis_py_is(url: str, checks: bool | None) -> None:
    with connect(url, check=False) as client:
        assert client.connection_pool.connection_kwargs.get("ssl_check_hostname") is checks
