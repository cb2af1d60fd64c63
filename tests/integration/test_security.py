"""The rights that docs/security.md gives are enough for what each needs, and for nothing else.

The lines of the page are loaded into a real server, and everybody does what it is there for as its own user. Which
commands the scripts need is read out of them as well, since some come in rare branches only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
import rq
from click.testing import CliRunner
from rq import Worker
from rq.command import send_shutdown_command
from rq.suspension import resume, suspend

from fsm import CallTimeoutError, Client, StoreError
from fsm.cli import main
from fsm.store.connection import connect
from fsm.store.embedded import EmbeddedServer
from tests.house.test_lua_headers import LUA, TO_REDIS, read
from tests.integration.conftest import Processes
from tests.integration.effect_machines import Desk
from tests.integration.machines import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
RIGHTS = dict(re.findall(r"^user (\w+) (on .*)$", PAGE, re.MULTILINE))
# Scripts that clients call; all others are the workers'.
CLIENTS_SCRIPTS = {"start", "send", "ask", "cancel", "purge", "steer"}
# What looks at all FSMs, and may read the names of all keys.
OPERATORS_SCRIPTS = {"dump", "note", "put", "restore", "synch"}
OPERATORS_MODULES = ("fsm/store/synching.py", "fsm/store/dumping.py")
WORKERS_SCRIPTS = {path.stem for path in LUA.glob("*.lua")} - {"prelude"} - CLIENTS_SCRIPTS - OPERATORS_SCRIPTS
# What our own modules ask for as plain commands, by where they do so.
ASKED = re.compile(r'\(\s*"([A-Z]{3,})"')
CLIENTS_MODULES = ("fsm/verbs", "fsm/registry.py", "fsm/store/requests.py")
# What redis-py asks for by itself, and every client of ours when it connects.
CONNECTING = {"client|setname", "info", "select"}
# And around the commands of a request that is atomic.
TRANSACTION = {"multi", "exec"}
# Those of RQ's worker, by how its modules call them.
RQ_MODULES = "executions group intermediate_queue job queue registry results suspension worker/base worker_registration"
RQ_CALLS = re.compile(r"\b(?:connection|pipeline|pipe|p)\.([a-z_]+)\(")


def rights(user: str) -> set[str]:
    """The commands that a line of the page allows."""
    return set(re.findall(r"\+([a-z|]+)", RIGHTS[user]))


def needed_by(script: str) -> set[str]:
    """The commands of a script and of the functions of the prelude that it calls."""
    shared = read("prelude", (LUA / "prelude.lua").read_text("utf-8")).functions
    body = read(script, (LUA / f"{script}.lua").read_text("utf-8")).tokens
    found, seen, left = set(), set(), [body]
    while left:
        tokens = left.pop()
        for i, (kind, text) in enumerate(tokens):
            if kind == "string" and tokens[i - 1][1] == "(" and tokens[i - 2][1] in {*TO_REDIS, "write"}:
                found.add(text.strip("'").lower())
            if kind == "name" and text in shared and text not in seen:
                seen.add(text)
                left.append(shared[text])
    return found


def asked_in(*places: str) -> set[str]:
    """The commands that modules of ours ask for, and other words that look like one."""
    paths = [ROOT / place for place in places]
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))}
    if places != OPERATORS_MODULES:
        files -= {ROOT / place for place in OPERATORS_MODULES}
    return {word.lower() for file in files for word in ASKED.findall(file.read_text("utf-8"))}


def needed_by_rq() -> set[str]:
    """The commands of RQ's worker; those that only `rq info` or `rq empty` need are left out."""
    home = Path(rq.__file__).parent
    called = {
        call for name in RQ_MODULES.split() for call in RQ_CALLS.findall((home / f"{name}.py").read_text("utf-8"))
    }
    named = {"delete": "del", "client_list": "client|list", "client_setname": "client|setname"}
    beside = {"exec", "subscribe", "unsubscribe", "unwatch"}  # with MULTI, of `pubsub`, and with WATCH
    return {named.get(call, call) for call in called - {"pubsub", "rename", "xlen"}} | beside


class World:
    """A server with the users of the page."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.redis: Any = connect(server.url)
        self.commands = {name.lower() for name in self.redis.command()}
        for user, rules in RIGHTS.items():
            self.allow(user, rules)

    def allow(self, user: str, rules: str) -> str:
        """Make a user of these rights, whatever it was before: its URL."""
        self.redis.execute_command("ACL", "SETUSER", user, "reset", *rules.split())
        return f"{self.server.url}?username={user}&password=change-me"

    def refused(self) -> list[Any]:
        """What the server refused since the last time: user, command or key, and where."""
        log = self.redis.execute_command("ACL", "LOG")
        self.redis.execute_command("ACL", "LOG", "RESET")
        pairs = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in log]
        return [(entry[b"username"], entry[b"object"], entry[b"context"]) for entry in pairs]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture
def world(server: EmbeddedServer) -> World:
    made = World(server)
    made.redis.flushall()
    made.refused()
    return made


def url_of(world: World, user: str) -> str:
    return world.allow(user, RIGHTS[user])


# What the lines say.


def test_the_line_of_the_application_has_what_clients_need_and_nothing_else(world: World) -> None:
    needed = set().union(*map(needed_by, CLIENTS_SCRIPTS)) | (asked_in(*CLIENTS_MODULES) & world.commands)

    assert rights("application") == needed | CONNECTING | TRANSACTION


def test_the_line_of_the_operator_has_what_an_application_may_and_what_synch_needs(world: World) -> None:
    needed = set().union(*map(needed_by, OPERATORS_SCRIPTS)) | (asked_in(*OPERATORS_MODULES) & world.commands)

    assert rights("operator") == rights("application") | needed


def test_the_line_of_the_worker_has_what_workers_and_their_clients_need_and_nothing_else(world: World) -> None:
    ours = set().union(*map(needed_by, WORKERS_SCRIPTS)) | (asked_in("fsm", "workers") & world.commands)

    # Of SCRIPT and CLIENT only what the line says; HELLO everybody may say; and READONLY is what an error begins with.
    # What only a client needs that waits for the disk, or for replicas, the page about that says.
    waiting = {"config", "wait", "waitaof"}
    needed = (ours - waiting - {"script", "client", "hello", "readonly"}) | {"script|load"} | rights("application")
    assert rights("worker") == needed | (needed_by_rq() & (world.commands | {"client|list", "client|setname"}))


def test_the_lines_are_read_out_of_the_scripts_function_by_function() -> None:
    assert needed_by("extend") >= {"get", "pexpire"}
    assert "zpopmin" not in needed_by("send")
    assert "hset" in needed_by("send")  # by way of the prelude


# That they are enough.


def act_as_application(client: Client) -> None:
    """Do all that an application does without a worker."""
    client.start_fsm(Journal, "a")
    client.start_many(Journal, ["b", ("c", [7])])
    client.start_fsm(Journal, "adopted", [], state="odd")
    client.start_fsm("Journal", "named")
    for _ in range(2):
        client.transition("a", "note", 1, key="k", meta={"by": "me"})
    client.transition("d", "note", 1, start=(Journal, []), result=True)
    client.transition("b", "note", 1, if_version=0)
    client.transition_many([("b", "note", 2), ("c", "note", 3), ("nobody", "note", 1)])
    with pytest.raises(CallTimeoutError):
        client.call("c", "note", 4, timeout=0.05)
    with pytest.raises(CallTimeoutError):
        client.wait_for("c", "odd", timeout=0.05)
    job = client.transition("d", "note", 5, job_id="taken-back")
    assert job.status() == "waiting"
    assert job.rq_job().args[1] == "d"
    assert job.cancel()
    client.purge("named")
    assert client.exists("a")
    assert client.allowed("a") == ("note",)
    assert client.counts()["Journal"]
    page = client.timers(count=1)
    assert client.timers(cursor=page.cursor or "1 timer gone a") == client.timers("a") == []
    assert len(list(client.snapshots(machine="Journal"))) == 5
    assert client.count() == client.count(Journal, finished=True) == len(client.all()) == 5
    assert client.exists(str(client.random(Journal)))
    assert client.cluster().alive == 5
    client.start_fsm(Journal, "pinned", host="edge-7")
    assert client.whois("a") in (None, *client.nodes())
    assert list(client.log()) == []


@pytest.mark.parametrize(("namespace", "keys"), [("default", "~fsm:*"), ("shop", "~fsm:shop:* ~fsm:namespaces")])
def test_an_application_can_do_all_that_clients_do(world: World, namespace: str, keys: str) -> None:
    url = world.allow("confined", RIGHTS["application"].replace("~fsm:*", keys))
    with Client(url, namespace=namespace) as client:
        act_as_application(client)

    assert world.refused() == []


def test_an_application_that_may_not_know_of_other_namespaces_can_do_all_the_same(world: World) -> None:
    url = world.allow("confined", RIGHTS["application"].replace("~fsm:*", "~fsm:shop:*"))
    with Client(url, namespace="shop") as client:
        act_as_application(client)
        assert client.cluster().namespaces == ["shop"]

    assert set(world.refused()) == {(b"confined", b"fsm:namespaces", b"toplevel")}


def test_a_worker_can_run_events_and_effects_and_obey_the_tools_of_rq(
    world: World, until: Callable[..., Any], tmp_path: Path
) -> None:
    processes = Processes(url_of(world, "worker"))
    app = "tests.integration.effect_machines"
    try:
        with Client(url_of(world, "application"), namespace="default") as client:
            desk = client.start_fsm(Desk, "desk")
            world.redis.hset("rq:job:foreign", mapping={"data": "[]", "created_at": "then"})
            world.redis.rpush("rq:queue:fsm", "foreign")
            one = processes.run("-m", "workers", "--app", app)
            two = processes.run("-m", "workers", "--app", app, "--queue", "fsm", "--queue", "more", "--no-effects")
            desk.call("ask", {"func": "double", "args": [21]}, timeout=30)
            desk.call("ask", {"func": "decline", "args": [str(tmp_path / "book")], "more": {"retry": 1}}, timeout=30)
            until(lambda: len(desk.state().payload) == 2, 30)
            suspend(world.redis)
            resume(world.redis)
            for worker in Worker.all(connection=world.redis):
                if "effects" not in worker.name:
                    send_shutdown_command(world.redis, worker.name)
            outputs = [process.communicate(timeout=30)[0] for process in (one, two)]
    finally:
        processes.end()

    assert [process.returncode for process in (one, two)] == [0, 0], outputs
    assert world.refused() == []
    assert "NOPERM" not in "".join(outputs)


def test_an_operator_can_repair_and_save_and_restore(world: World, tmp_path: Path) -> None:
    with Client(url_of(world, "operator"), namespace="default") as client:
        act_as_application(client)
        assert client.synch() == []
        client.start_fsm(Journal, "saved")
        saved = client.backup(tmp_path)
        client.export_fsm("saved", tmp_path / "one.fsm.gz")
        assert client.restore(tmp_path).kept == saved.fsms
        client.purge("saved")
        assert client.restore(tmp_path, replace=True).restored == 1
        world.redis.delete(client.keys.ready("fsm"))
        assert {one.what for one in client.synch()} == {"ready"}
    assert world.refused() == []

    with (
        Client(url_of(world, "application"), namespace="default") as client,
        pytest.raises(StoreError, match=r"docs/security\.md"),
    ):
        client.synch()
    assert [command for _, command, _ in world.refused()] == [b"scan"]


def test_an_inspector_can_look_at_everything(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(url_of(world, "application"), namespace="default") as client:
        act_as_application(client)
    monkeypatch.setenv("FSM_URL", url_of(world, "inspector"))

    for command in (
        "state a",
        "ls",
        "all",
        "count",
        "log",
        "info",
        "jobs a",
        "history a",
        "machines",
        "draw --fsm a",
        "config",
    ):
        done = CliRunner().invoke(main, command.split())
        assert (done.exit_code, done.stderr) == (0, ""), command
        assert "change-me" not in done.output
    # A deploy is checked with no more rights, also with mail.
    for user in ("inspector", "application"):
        told = ["check", "tests.integration.machines:Journal", "--against", url_of(world, user), "--mail"]
        done = CliRunner().invoke(main, told)
        assert (done.exit_code, done.stderr) == (0, ""), done.output
        assert "FSMs live, and nothing stands against it" in done.stdout
        assert "change-me" not in done.output
    done = CliRunner().invoke(main, ["wait", "a", "odd", "--timeout", "50ms"])
    assert "did not come about within 0.05 s" in done.stderr, done.stderr
    with connect(url_of(world, "inspector")) as reader:
        reader.hgetall("fsm:default:snapshot:a")
        reader.type("fsm:default:mailbox:a")
        reader.ttl("fsm:default:lock:a")
        reader.memory_usage("fsm:default:snapshot:a")
        assert b"fsm:default:snapshot:a" in list(reader.scan_iter("fsm:*"))
    assert world.refused() == []


# That they are no more.

EVERYBODY = """
FLUSHALL; FLUSHDB; KEYS *; CONFIG GET *; CONFIG SET maxmemory 1; SHUTDOWN; MONITOR; ACL LIST; ACL SETUSER x;
SCRIPT FLUSH; REPLICAOF NO ONE; CLIENT KILL TYPE normal; SWAPDB 0 1; MODULE LIST; SAVE; MIGRATE h 1 k 0 1;
GET basket:1; HGETALL users; SUBSCRIBE chat; PUBLISH rq:pubsub:w {}; SORT rq:queue:fsm; RENAME rq:queue:fsm fsm:x
"""
DENIED = {
    "application": "BLMOVE rq:queue:fsm fsm:default:hand:me LEFT RIGHT 1; SUBSCRIBE rq:pubsub:w; CLIENT LIST; SCAN 0",
    "worker": "SET basket:1 x; HSET users ann x; SCAN 0",
    "operator": "BLMOVE rq:queue:fsm fsm:default:hand:me LEFT RIGHT 1; SUBSCRIBE rq:pubsub:w; CLIENT LIST",
    "inspector": """SET fsm:default:lock:a x; HSET fsm:default:snapshot:a state odd; DEL rq:job:x; RPUSH rq:queue:fsm x;
EXPIRE fsm:default:snapshot:a 1; BLPOP fsm:default:mailbox:a 1; XADD fsm:default:log * a b; EVALSHA x 0; CLIENT LIST;
SUBSCRIBE rq:pubsub:w""",
}


@pytest.mark.parametrize("user", RIGHTS)
def test_a_user_may_do_nothing_else(world: World, user: str) -> None:
    with connect(url_of(world, user)) as client:
        for command in f"{EVERYBODY};{DENIED[user]}".split(";"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
        for command in ("'SET', 'basket:1', 'x'", "'FLUSHALL'", "'GET', 'basket:1'"):
            with pytest.raises(redis.exceptions.ResponseError, match=r"executing the script|permission"):
                client.eval(f"return redis.call({command})", 0)


# What is said where they are not enough.


@pytest.mark.parametrize(
    "less",
    [
        pytest.param(("~fsm:*", "~fsm:shop:*"), id="another namespace"),
        pytest.param(("~rq:*", ""), id="no jobs"),
        pytest.param(("+evalsha", ""), id="no scripts"),
        pytest.param(("+hset", ""), id="no command of a script"),
        pytest.param(("+hmget", ""), id="no command that a script reads with"),
    ],
)
def test_what_a_client_may_not_do_is_told_as_that(world: World, less: tuple[str, str]) -> None:
    """Seen to fail without `permitted` in the prelude: a key of the FSM is said to be of another type."""
    with Client(url_of(world, "application"), namespace="default") as client:
        client.start_fsm(Journal, "a")
    url = world.allow("less", RIGHTS["application"].replace(*less))

    with Client(url, namespace="default") as client:
        for ask in (lambda: client.start_fsm(Journal, "b"), lambda: client.transition("a", "note", 1)):
            with pytest.raises(StoreError) as raised:
                ask()
            said = str(raised.value)
            assert "does not allow this to our user" in said
            assert "see docs/security.md for its rights" in said
            assert "username=less&password=***" in said


@pytest.mark.parametrize(
    "less",
    [
        pytest.param(("+zpopmin", ""), id="no claims"),
        pytest.param(("&rq:pubsub:*", ""), id="no commands of RQ"),
    ],
)
def test_a_worker_without_its_rights_says_so(world: World, less: tuple[str, str]) -> None:
    processes = Processes(world.allow("less", RIGHTS["worker"].replace(*less)))
    output, _ = processes.run("-m", "workers", "--burst", "--no-effects").communicate(timeout=60)

    assert "see docs/security.md for its rights" in output
    assert "change-me" not in output
