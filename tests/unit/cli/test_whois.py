"""Whose a name is, and FSMs that are started for a host."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from fsm import Client

Run = Callable[..., Result]


def live(client: Client, *hosts: str) -> None:
    seconds, _ = client.redis.time()
    client.redis.zadd(client.keys.hosts, dict.fromkeys(hosts, (int(seconds) + 60) * 1000))


def test_whois_says_to_which_hosts_the_ring_gives_names(fsm: Run, client: Client) -> None:
    live(client, "edge-1", "edge-2", "edge-3")

    done = fsm("whois", "order-42", "order-43")
    assert (done.exit_code, done.stdout) == (0, f"order-42\tedge-3\norder-43\t{client.whois('order-43')}\n")
    assert json.loads(fsm("whois", "order-42", "--json").stdout) == [{"name": "order-42", "host": "edge-3"}]


def test_without_a_host_it_fails(fsm: Run) -> None:
    done = fsm("whois", "order-42")

    assert (done.exit_code, done.stdout) == (1, "order-42\t\n")
    assert done.stderr == "fsm: no host is alive: start a worker with `fsm worker`\n"


def test_the_cluster_of_the_application_is_asked(fsm: Run, client: Client, tmp_path: Path) -> None:
    text = "from fsm import App, HashRing\nfrom cli_shop import Door\napp = App([Door], cluster=HashRing(['mine']))\n"
    (tmp_path / "cli_racks.py").write_text(text, "utf-8")

    assert fsm("whois", "order-42", "--app", "cli_racks").stdout == "order-42\tmine\n"


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("raise OSError('no map')", 2, "whois('order-42') of Racks: raised OSError: no map"),
        ("return 7", 2, "whois('order-42') of Racks: host 7: use 1 to 100 of"),
        ("return ''", 2, "whois('order-42') of Racks: host '': use 1 to 100 of"),
        ("return None", 1, "the cluster of --app gives no host to order-42: any worker runs them"),
    ],
)
def test_a_cluster_of_the_application_that_knows_no_answer_is_told_of(
    fsm: Run, tmp_path: Path, body: str, code: int, said: str
) -> None:
    """Seen to end in a traceback, to print 7 as a host, and to say that no host was alive."""
    module = f"cli_cluster_{len(body)}"  # each its own, for modules stay imported
    (tmp_path / f"{module}.py").write_text(
        "from fsm import App\nfrom cli_shop import Door\n\n"
        f"class Racks:\n    def nodes(self): return []\n    def whois(self, name): {body}\n\n"
        "app = App([Door], cluster=Racks())\n",
        "utf-8",
    )

    done = fsm("whois", "order-42", "--app", module)
    assert done.exit_code == code
    assert said in done.stderr


@pytest.mark.parametrize("more", [(), ("--state", "open")])
def test_start_pins_to_a_host(fsm: Run, client: Client, more: Any) -> None:
    done = fsm("start", "cli_shop:Door", "front", "--host", "edge-7", *more)

    assert (done.exit_code, done.stdout) == (0, "started\tfront\n")
    assert client.state("front").queue == "fsm@edge-7"
    assert "fsm@edge-7" in fsm("state", "front").stdout


def test_a_host_that_cannot_be_one_is_said_in_words(fsm: Run) -> None:
    done = fsm("start", "cli_shop:Door", "front", "--host", "edge 7")

    assert done.exit_code == 1
    assert "the name of a host is" in done.stderr
