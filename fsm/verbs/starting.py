"""Plans that start FSMs, and what is told and known of their machines.

Who calls this: the client, and workers to announce their machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import checked_name, encode_payload
from fsm.errors import FSMError, FSMExistsError, PayloadError, UnknownMachineError
from fsm.machine import Definition
from fsm.machine.settings import check_size
from fsm.machine.values import JSON
from fsm.store import calls
from fsm.store.blueprint import Blueprint
from fsm.store.codec import new_ids, text
from fsm.store.keys import NAMESPACES
from fsm.store.requests import Request
from fsm.verbs.verdicts import Verdict, broken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fsm.store.keys import Keys
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


def start_many(
    keys: Keys,
    machine: Definition | Blueprint,
    items: Iterable[tuple[str, Any]],
    *,
    state: str | None = None,
    exist_ok: bool = False,
) -> Plan[list[Verdict]]:
    """Start FSMs of one machine, many a round trip.

    On a crash: those of the calls that Redis has had exist, the others do not.

    Args:
        keys: Of the namespace.
        machine: By its class, or as it was announced.
        items: Pairs of name and payload.
        state: Adopt them in this state, without an entry event.
        exist_ok: One of this machine that exists is as good as one that was started; its verdict has no job.
    """
    about = calls.blueprint_of(keys, machine)
    if state is not None:
        about.check_adoptable(state)
    births = [calls.Birth(checked_name(name), "", first_payload(machine, payload)) for name, payload in items]
    verdicts: list[Verdict] = []
    for first in range(0, len(births), calls.MOST_ITEMS):
        part = births[first : first + calls.MOST_ITEMS]
        ids = new_ids(len(part))
        part = [calls.Birth(birth.name, job_id, birth.raw) for birth, job_id in zip(part, ids, strict=True)]
        words = yield calls.start(keys, about, part, state=state)
        for birth, word in zip(part, words, strict=True):
            if exist_ok and word == f"EXISTS {about.name}":
                verdicts.append(Verdict(birth.name, ""))
            else:
                verdicts.append(Verdict(birth.name, birth.job_id, _start_error(keys, birth.name, word)))
    return verdicts


def _start_error(keys: Keys, name: str, word: str) -> FSMError | None:
    kind, _, machine = word.partition(" ")
    if kind == "CREATED":
        return None
    if kind == "EXISTS":
        return FSMExistsError(name, keys.namespace, machine)
    return broken(keys, name)
