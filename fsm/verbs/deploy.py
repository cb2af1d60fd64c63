"""A plan that holds a definition that is to be deployed against the FSMs that live: what of them it would leave behind.

It counts by the index, one look a state that any definition of the machine ever had; only where it is asked to look at
mail does it read each FSM, a page at a time.

Who calls this: `Client.check`, and by that `fsm check --against`; `why` asks whether one FSM was left behind already.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from fsm.engine import strangeness
from fsm.engine.migrating import MIGRATE
from fsm.engine.timers import TICK, event_of, read_timers
from fsm.machine import read_mark
from fsm.store.codec import text
from fsm.store.requests import Request
from fsm.verbs.looking import indexed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsm.machine import Definition
    from fsm.store.keys import Keys
    from fsm.verbs.plans import Plan

__all__ = ["DeployCheck", "Finding", "check_deploy", "left_behind"]

_PAGE = 250
# Of the mail of one FSM: Redis serves nobody else meanwhile.
_MOST_MAIL = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a definition would leave behind.

    Args:
        kind: "state", "event", "effect", "timer", "hard", "end", "newer", "queue" or "storage".
        about: The state, event, or queue.
        count: How many FSMs, events, effects or timers.
        text: The same as a sentence without its period.
    """

    kind: str
    about: str
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class DeployCheck:
    """What came of a check.

    Args:
        machine: Its name.
        fsms: How many of it live.
        findings: What stands against a deploy.
        notes: What does not, and is good to know.
    """

    machine: str
    fsms: int
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Whether nothing stands against it."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"ok": self.is_ok, **asdict(self)}


@dataclass(slots=True)
class _Walk:
    """What was seen of FSMs that were read one by one."""

    strange: Counter[str] = field(default_factory=Counter)
    newer: Counter[int] = field(default_factory=Counter)
    stored: int = 0
    events: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    timers: Counter[str] = field(default_factory=Counter)


def check_deploy(keys: Keys, definition: Definition, *, mail: bool = False) -> Plan[DeployCheck]:
    """Check whether a definition may take the place of those by which FSMs live now.

    It is no promise: FSMs go on meanwhile.

    Args:
        keys: Of the namespace.
        definition: The one that is to be deployed.
        mail: Read all FSMs of the machine as well: their mail, delayed events, open effects, timers, and who wrote them
            last.
    """
    name, graph = definition.name, definition.graph
    before = yield from _announced(keys, name)
    states = [state for machine, state in (yield indexed(keys)) if machine == name]
    counts = yield from _counts(keys, name, states)
    walk = (
        (yield from _walked(keys, definition, [state for state in states if counts[state]], before)) if mail else None
    )
    findings = [
        *_lacking(definition, counts, before, walk),
        *_mail(walk),
        *_hard(definition, counts, before),
        *_ended(definition, counts),
        *_moved(keys, definition, sum(counts.values()), before, walk),
        *_newer(definition, sum(counts.values()), before, walk),
    ]
    notes = list(_notes(definition, counts, before, walk))
    known = dict.fromkeys((*before.get("states", ()), *graph.states))
    order = {state: at for at, state in enumerate(known)}
    findings.sort(key=lambda one: (one.kind != "state", one.kind != "event", order.get(one.about, len(order))))
    return DeployCheck(name, sum(counts.values()), tuple(findings), tuple(notes))


def _announced(keys: Keys, name: str) -> Plan[dict[str, Any]]:
    """Read what was announced of the machine; empty where nothing was, or it cannot be read."""
    raw = yield Request(lambda reply: reply, commands=[("HGET", keys.machines, name)])
    try:
        about = orjson.loads(raw) if raw else {}
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _counts(keys: Keys, name: str, states: list[str]) -> Plan[dict[str, int]]:
    if not states:
        return {}
    replies = yield _many([("ZCARD", keys.state(name, state)) for state in states])
    return dict(zip(states, map(int, replies), strict=True))


def _walked(keys: Keys, definition: Definition, states: list[str], before: Mapping[str, Any]) -> Plan[_Walk]:
    """Read all FSMs of these states; one that moves meanwhile may be seen twice, or not at all."""
    walk, known = _Walk(), {*definition.graph.events, definition.graph.entry, before.get("entry"), TICK}
    for state in states:
        cursor = 0
        while True:
            command = ("ZSCAN", keys.state(definition.name, state), cursor, "COUNT", _PAGE)
            at, members = yield Request(lambda reply: reply, commands=[command])
            names = [text(name) for name, _ in members]
            # A small index comes whole, however few are asked for.
            for first in range(0, len(names), _PAGE):
                yield from _read(keys, definition, names[first : first + _PAGE], known, walk)
            if not (cursor := int(at)):
                break
    return walk


def _read(keys: Keys, definition: Definition, names: list[str], known: set[Any], walk: _Walk) -> Plan[None]:
    commands: list[tuple[Any, ...]] = []
    for name in names:
        commands += [
            ("HMGET", keys.snapshot(name), "state", "status", "definition", "timers"),
            ("LRANGE", keys.urgent(name), 0, _MOST_MAIL - 1),
            ("LRANGE", keys.mailbox(name), 0, _MOST_MAIL - 1),
            ("ZRANGE", keys.later(name), 0, _MOST_MAIL - 1),
            ("HSCAN", keys.effects_of(name), 0, "COUNT", _MOST_MAIL),
        ]
    replies = yield _many(commands)
    ids: list[str] = []
    for at in range(0, len(replies), 5):
        (state, status, mark, timers), *lists, (_, effects) = replies[at : at + 5]
        if state is None:
            continue  # purged meanwhile
        ids += (text(job_id) for found in lists for job_id in found)
        walk.effects.update(event for event in _answers(effects) if event not in known)
        if strangeness(definition, definition.name, text(state), text(status), text(mark)):
            version = read_mark(text(mark)).version
            if version > definition.settings.definition_version:
                walk.newer[version] += 1
            elif text(state) not in definition.graph.states:
                walk.strange[text(state)] += 1
            else:
                walk.stored += 1
        for key, timer in read_timers(timers).items():
            if timer.at_ms and key != TICK and event_of(key, timer) not in known:
                walk.timers[event_of(key, timer)] += 1
    for first in range(0, len(ids), _MOST_MAIL):
        events = yield _many([("HGET", keys.job(job_id), "event") for job_id in ids[first : first + _MOST_MAIL]])
        walk.events.update(text(event) for event in events if event is not None and text(event) not in known)


def _answers(effects: Mapping[Any, Any]) -> Iterator[str]:
    """Give the events by which open effects of one FSM may answer."""
    for raw in effects.values():
        try:
            note = orjson.loads(raw)
        except ValueError:
            continue  # edited by hand
        if isinstance(note, dict):
            yield from (str(note[key]) for key in ("on_success", "on_failure") if note.get(key))


def _lacking(
    definition: Definition, counts: Mapping[str, int], before: Mapping[str, Any], walk: _Walk | None
) -> Iterator[Finding]:
    """Find FSMs in states that the new definition lacks, and that it would not migrate."""
    theirs = before.get("definition_version")
    # Whoever writes that state today has no lower version, so that `migrate` is not asked.
    is_same = isinstance(theirs, int) and theirs >= definition.settings.definition_version
    for state, count in counts.items():
        if not count or state in definition.graph.states:
            continue
        is_led_on = _migrates(definition) and not (is_same and state in before.get("states", ()))
        left = walk.strange[state] if walk else 0 if is_led_on else count
        if left:
            are = "FSM is" if left == 1 else "FSMs are"
            why = " at its own definition_version" if _migrates(definition) else ""
            yield Finding("state", state, left, f"{left} {are} in `{state}`{why}, which the new definition lacks")


def _mail(walk: _Walk | None) -> Iterator[Finding]:
    """Find events and timers that nothing in the diagram takes, in whatever state."""
    if walk is None:
        return
    for event, count in sorted(walk.events.items()):
        waiting = "1 waiting event" if count == 1 else f"{count} waiting events"
        yield Finding("event", event, count, f"{waiting} `{event}` {'has' if count == 1 else 'have'} no edge")
    for event, count in sorted(walk.effects.items()):
        answers = "1 open effect answers" if count == 1 else f"{count} open effects answer"
        yield Finding("effect", event, count, f"{answers} by `{event}`, which has no edge")
    for event, count in sorted(walk.timers.items()):
        armed = "1 armed timer" if count == 1 else f"{count} armed timers"
        yield Finding("timer", event, count, f"{armed} `{event}` {'has' if count == 1 else 'have'} no edge")


def _hard(definition: Definition, counts: Mapping[str, int], before: Mapping[str, Any]) -> Iterator[Finding]:
    """Find FSMs that rest in a state out of which now only a hard event leads: it fires where a state is entered."""
    old = before.get("hard")
    for state, event in definition.graph.hard_events.items():
        count = counts.get(state, 0)
        if count and isinstance(old, dict) and state not in old and state in before.get("states", ()):
            when = "it fires when their next event comes" if _migrates(definition) else "nothing fires it for them"
            text_of = f"{_fsms(count)} in `{state}`, whose hard event `{event}` is new: {when}"
            yield Finding("hard", state, count, text_of)


def _ended(definition: Definition, counts: Mapping[str, int]) -> Iterator[Finding]:
    """Find FSMs that live in a state whose entering ends them now: they have entered it, and nothing leads out."""
    for state in definition.graph.states:
        if (count := counts.get(state, 0)) and state in definition.graph.ends:
            what = "`migrate` must lead them elsewhere" if _migrates(definition) else "they would never end"
            told = f"{_fsms(count)} in `{state}`, in which the new definition ends: {what}"
            yield Finding("end", state, count, told)


def _moved(
    keys: Keys, definition: Definition, fsms: int, before: Mapping[str, Any], walk: _Walk | None
) -> Iterator[Finding]:
    """Find that workers of the new definition would look for FSMs, or their payloads, elsewhere."""
    queue, old = definition.settings.queue or keys.default_queue, before.get("queue")
    if fsms and isinstance(old, str) and old != queue:
        told = f"{_fsms(fsms)} in queue `{old}`, and the new definition has `{queue}`: workers must listen on both"
        yield Finding("queue", old, fsms, told)
    if walk is not None and walk.stored:
        told = f"{_fsms(walk.stored)} in a storage, and the new definition has none to find their payloads in"
        yield Finding("storage", definition.name, walk.stored, told)
    elif walk is None and fsms and before.get("storage") and definition.storage is None:
        told = f"{_fsms(fsms)} in a storage, perhaps, and the new definition has none to find their payloads in"
        yield Finding("storage", definition.name, fsms, told)


def _newer(definition: Definition, fsms: int, before: Mapping[str, Any], walk: _Walk | None) -> Iterator[Finding]:
    """Find FSMs that a newer definition has touched: workers of this one would leave them alone."""
    ours, theirs = definition.settings.definition_version, before.get("definition_version")
    if walk is not None:
        for version, count in sorted(walk.newer.items()):
            told = f"{_fsms(count)} of definition_version {version}, and this one is {ours}: they would wait"
            yield Finding("newer", str(version), count, told)
    elif fsms and isinstance(theirs, int) and theirs > ours:
        told = f"definition_version {theirs} was announced, and this one is {ours}: FSMs that it has touched would wait"
        yield Finding("newer", str(theirs), fsms, told)


def _notes(
    definition: Definition, counts: Mapping[str, int], before: Mapping[str, Any], walk: _Walk | None
) -> Iterator[str]:
    """Say what does not stand against a deploy."""
    if not before:
        yield f"machine {definition.name!r} was never announced here: was it renamed?"
    for state, count in counts.items():
        left = count - (walk.strange[state] if walk else 0)
        if left > 0 and state not in definition.graph.states and _migrates(definition):
            yield f"{_fsms(left)} in `{state}`, which the new definition lacks: `migrate` leads them on"
    version = definition.settings.definition_version
    is_changed = before.get("fingerprint") not in (None, definition.fingerprint)
    if is_changed and before.get("definition_version") == version and any(counts.values()):
        yield (
            f"the diagram changed and definition_version is {version} as before: workers of both definitions run the "
            "same FSMs"
        )
    old = before.get("timers") or {}
    for state, count in counts.items():
        armed = {key for key, *_ in old.get(state, ())} if isinstance(old, dict) else set()
        for edge in definition.graph.timers_of(state):
            if count and before and edge.event not in armed and state in before.get("states", ()):
                when = "it begins when their next event comes" if _migrates(definition) else "it is not armed for them"
                yield f"{_fsms(count)} in `{state}`, whose timer `{edge.event}` is new: {when}"


def _migrates(definition: Definition) -> bool:
    return MIGRATE in definition.hooks and definition.settings.definition_version > 1


def _fsms(count: int) -> str:
    return f"{count} FSM is" if count == 1 else f"{count} FSMs are"


def _many(commands: list[tuple[Any, ...]]) -> Request[list[Any]]:
    return Request(lambda reply: reply if len(commands) > 1 else [reply], commands=commands)


def left_behind(about: Mapping[str, Any], state: str, status: str, mark: str) -> str:
    """Say in a clause, with both definitions, that an FSM waits for another than was announced last; "" where not.

    >>> about = {"states": ["cart"], "definition_version": 1, "fingerprint": "5e6f7a8b"}
    >>> left_behind(about, "cart", "running", "1a2b3c4d")
    ''
    >>> left_behind(about, "review", "running", "1a2b3c4d")[:84]
    "; it is in state 'review' as definition 1a2b3c4d (version 1) has it, and definition "

    Args:
        about: What was announced of its machine.
        state: Where it stands.
        status: Its status.
        mark: Of the definition that wrote it last.
    """
    states, version, theirs = about.get("states"), about.get("definition_version"), read_mark(mark)
    if not isinstance(states, list) or not isinstance(version, int) or status == "finished":
        return ""
    if theirs.version > version:
        lack = "is older"
    elif state not in states and not (about.get("migrates") and theirs.version < version):
        lack = "lacks that state, and has no migration for it"
    else:
        return ""
    by = f"definition {theirs.fingerprint} (version {theirs.version})"
    last = f"definition {about.get('fingerprint')} (version {version})"
    where = f"; it is in state {state!r} as {by} has it, and {last}, announced last, {lack}"
    return f"{where}: it waits for a worker that knows it"
