"""Plans that start FSMs, and what is told and known of their machines.

Who calls this: the client, and workers to announce their machines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_host, checked_name, encode_payload
from fsm.engine.migrating import MIGRATE
from fsm.errors import FSMError, FSMExistsError, PayloadError, UnknownMachineError
from fsm.machine import Definition
from fsm.machine.settings import check_size
from fsm.machine.values import JSON
from fsm.store import calls
from fsm.store.blueprint import Blueprint
from fsm.store.codec import new_ids, text
from fsm.store.keys import NAMESPACES
from fsm.store.places import pinned
from fsm.store.requests import Request
from fsm.verbs.verdicts import Verdict, broken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fsm.store.keys import Keys
    from fsm.store.places import Placer
    from fsm.verbs.plans import Plan

__all__ = ["announce", "blueprint", "enlist", "first_payload", "start_many"]


def announce(keys: Keys, definitions: Iterable[Definition], seen_at: int) -> Request[Any]:
    """Tell everyone which machines there are: for lists, and for senders that do not have the class."""
    command: list[Any] = ["HSET", keys.machines]
    states: list[Any] = ["SADD", keys.states]
    for definition in definitions:
        graph = definition.graph
        about = {
            **Blueprint.of(definition, keys.default_queue).announcement(),
            "seen_at": seen_at,
            "events": graph.events,
            "allowed": {state: graph.allowed(state) for state in graph.states},
            "diagram": graph.render("mermaid"),
        }
        # For who checks whether another definition may take its place.
        about |= {"storage": True} if definition.storage is not None else {}
        about |= {"migrates": True} if MIGRATE in definition.hooks else {}
        if (raw := _default_payload(definition)) is not None:
            about["payload"] = orjson.Fragment(raw)
        command += (definition.name, orjson.dumps(about))
        states += (f"{definition.name}:{state}" for state in graph.states)
    return Request(lambda reply: reply, commands=[tuple(command), tuple(states)])


def enlist(keys: Keys) -> Request[Any]:
    """Note that there is this namespace; where a user has rights in it alone, Redis refuses that."""
    return Request(lambda reply: reply, commands=[("SADD", NAMESPACES, keys.namespace)])


def _default_payload(definition: Definition) -> bytes | None:
    try:
        return encode_payload(definition, None)
    except PayloadError:
        # Its type has no default: whoever starts one must give it a payload.
        return None


def blueprint(keys: Keys, machine: str) -> Plan[Blueprint]:
    """Find a machine by its name, as its workers announced it.

    Raises:
        UnknownMachineError: Nobody announced one of this name.
        StoreError: What was announced cannot be read.
    """
    raw = yield Request(lambda reply: reply, commands=[("HGET", keys.machines, machine)])
    if raw is None:
        known = yield Request(lambda reply: sorted(map(text, reply)), commands=[("HKEYS", keys.machines)])
        raise UnknownMachineError(machine, tuple(known))
    try:
        about = orjson.loads(raw)
    except ValueError:
        about = None
    return Blueprint.announced(machine, about)


def first_payload(machine: Definition | Blueprint, payload: Any) -> bytes:
    """Write the first payload of an FSM as JSON: typed with the class, plain with what was announced.

    Raises:
        PayloadError: It is not what the machine wants; or none was given, and its type has no default.
    """
    if isinstance(machine, Definition):
        return encode_payload(machine, payload)
    if payload is not None:
        raw = JSON.encode(payload)
    elif machine.payload is not None:
        raw = machine.payload
    else:
        problem = f"FSMs of machine {machine.name!r} have no payload to begin with by default: give one"
        raise PayloadError(problem)
    return check_size(raw, "the payload has", machine.payload_limit)


def start_many(  # noqa: PLR0913 - one keyword an option of a start
    keys: Keys,
    machine: Definition | Blueprint,
    items: Iterable[tuple[str, Any]],
    *,
    state: str | None = None,
    exist_ok: bool = False,
    host: str | None = None,
    placer: Placer | None = None,
) -> Plan[list[Verdict]]:
    """Start FSMs of one machine, many a round trip: at least one for each host to which they go.

    On a crash: those of the calls that Redis has had exist, the others do not.

    Args:
        keys: Of the namespace.
        machine: By its class, or as it was announced.
        items: Pairs of name and payload.
        state: Adopt them in this state, without an entry event.
        exist_ok: One of this machine that exists is as good as one that was started; its verdict has no job.
        host: They are run on this host alone.
        placer: Says to which hosts they go, where their machine leaves that to the ring.
    """
    about = calls.blueprint_of(keys, machine)
    if state is not None:
        about.check_adoptable(state)
    births = [calls.Birth(checked_name(name), "", first_payload(machine, payload)) for name, payload in items]
    verdicts: list[Verdict] = [Verdict(birth.name, "") for birth in births]
    for queue, places in _by_queue(about, births, host, placer).items():
        there = replace(about, queue=queue)
        for first in range(0, len(places), calls.MOST_ITEMS):
            some = places[first : first + calls.MOST_ITEMS]
            ids = new_ids(len(some))
            part = [calls.Birth(births[n].name, job_id, births[n].raw) for n, job_id in zip(some, ids, strict=True)]
            words = yield calls.start(keys, there, part, state=state)
            for n, birth, word in zip(some, part, words, strict=True):
                if not exist_ok or word != f"EXISTS {about.name}":
                    verdicts[n] = Verdict(birth.name, birth.job_id, _start_error(keys, birth.name, word))
    return verdicts


def _by_queue(
    about: Blueprint, births: Sequence[calls.Birth], host: str | None, placer: Placer | None
) -> dict[str, Sequence[int]]:
    """Say which of the births go to which queue: of those of one queue, the first stay first."""
    if host is not None:
        return {pinned(about.queue, checked_host(host)): range(len(births))}
    if placer is None or about.placement != "ring":
        return {about.queue: range(len(births))}
    found: dict[str, list[int]] = {}
    for n, birth in enumerate(births):
        found.setdefault(placer.first(about.queue, about.placement, birth.name), []).append(n)
    return dict(found)


def _start_error(keys: Keys, name: str, word: str) -> FSMError | None:
    kind, _, machine = word.partition(" ")
    if kind == "CREATED":
        return None
    if kind == "EXISTS":
        return FSMExistsError(name, keys.namespace, machine)
    return broken(keys, name)
