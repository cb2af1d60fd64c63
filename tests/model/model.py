"""What the scripts do, in plain Python: no keys, no clock, no Lua.

Each method is one script, and is written from what the script promises. An FSM here is an object, a lock is a pair in
it, time is a flag ("its lease is over"). `machine` asks both, the model and Redis, and compares answers and all that is
left behind.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fsm.engine.mail import derived_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# The graph of `machine.Gate`, and what its handlers do.
ENTRY = "[*]"
START, END = "low", "over"
EDGES = {
    ("low", "note"): "low",
    ("low", "tell"): "low",
    ("low", "defer"): "low",
    ("low", "chime"): "low",
    ("low", "push"): "high",
    ("low", "trip"): "odd",
    ("low", "shut"): "over",
    ("high", "fall"): "low",
}
RAISING = {("low", "break"), ("low", "soft"), ("low", "again"), ("odd", "stumble")}
RETRIED = {"again", "stumble"}
ATTEMPTS = 2
SOFT = {("low", "soft")}
HARD = {"high": "fall", "odd": "stumble"}
MAX_ATTEMPTS = 1
MAX_MAILBOX = 6
# Most events of one FSM in a claim, however many the claim may take.
_MOST_MAIL = 100
_MOST_PROBATION = 64


@dataclass
class Job:
    """The record of one event; without `fsm` it was deleted, and a commit wrote its end all the same."""

    fsm: str | None
    event: str | None
    born: str
    place: str = "mail"
    status: str = "queued"
    to: str = ""
    if_version: int | None = None
    digest: str = ""
    has_ended: bool = False
    attempt: int = 0
    alarm: int = 0  # of a delayed one that waits
    arm: int | None = None  # of one that a timer sent: the version that armed that


@dataclass
class Alarm:
    """A delayed event will be due: "later" or "due"."""

    job_id: str
    name: str
    when: str = "later"


def arm_of(job_id: str) -> int | None:
    """Tell which version armed the timer that sent this event."""
    match = re.search(r"--t\d+v(\d+)$", job_id)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Timer:
    """The timer of `low`: "later", "due", or "failed" where its event did and may be retried."""

    arm: int
    when: str = "later"


@dataclass
class Fsm:
    """One life of a name."""

    born: str
    state: str = START
    status: str = "starting"
    version: int = 0
    applied: list[str] = field(default_factory=list)
    mailbox: list[str] = field(default_factory=list)
    urgent: list[str] = field(default_factory=list)
    owes: str = ""
    failed_from: str = ""
    tries: int = 0
    is_suspect: bool = False
    probation: int = 0
    paused: bool = False
    retry: str = ""  # "later" while its oldest event waits to be tried again, "due" when it may be
    timer: Timer | None = None
    has_error: bool = False  # its last event failed, and none was done since
    lock: tuple[str, str] | None = None

    @property
    def moves(self) -> bool:
        return self.status != "failed"

    def head(self) -> str | None:
        return (self.urgent or self.mailbox or [None])[0]


@dataclass
class Worker:
    """What Redis remembers of a worker."""

    number: int = 0
    claims: dict[str, str] = field(default_factory=dict)
    verdicts: dict[int, tuple[int, list[str]]] = field(default_factory=dict)
    hand: list[str] = field(default_factory=list)


@dataclass
class Letter:
    """One event to be sent; `job_id` of a key is its hash and ":"."""

    name: str
    job_id: str
    event: str
    born: str = ""
    to: str = ""
    if_version: int | None = None
    digest: str = ""
    entry: str = ""
    is_delayed: bool = False


@dataclass
class Order:
    """An operator's verb."""

    verb: str
    name: str
    nonce: str
    born: str


@dataclass
class Failure:
    """The event of an FSM that failed last, as an operator's plan found it in the snapshot."""

    version: int
    kind: str
    job_id: str
    event: str
    is_last: bool


@dataclass
class Taken:
    """One FSM as a claim gave it."""

    name: str
    token: str
    fsm: Fsm
    urgent: int
    mail: list[tuple[str, Job | None]]
    attempts: int | None = None
    probation: int | None = None  # of a suspect: how many events it may have next, 0 where it is cleared


@dataclass
class Block:
    """What came of running a claimed FSM, to be committed."""

    name: str
    token: str
    before: str
    state: str = ""
    ending: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    urgent: int = 0
    done: list[str] = field(default_factory=list)
    operations: list[tuple[str, ...]] = field(default_factory=list)


class Model:
    """Everything that Redis knows of one namespace.

    Args:
        born_of: Tells the life of an FSM that was just created, which Redis draws.
        time_of: Tells the ms of the last commit of an FSM.
        later_of: Tells in which order the delayed events of an FSM were due before this call: some are so in one ms.
    """

    def __init__(
        self, born_of: Callable[[str], str], time_of: Callable[[str], str], later_of: Callable[[str], list[str]]
    ) -> None:
        self._born_of = born_of
        self._time_of = time_of
        self._later_of = later_of
        self.fsms: dict[str, Fsm] = {}
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.ready: list[str] = []
        self.held: dict[str, bool] = {}  # whether the lease is over
        self.timers: dict[str, str] = {}  # retries: "later" or "due"
        self.alarms: dict[int, Alarm] = {}  # delayed events, by the number of their acceptance
        self.chimes: dict[str, str] = {}  # alarms of timers, by the name of their FSM
        self._accepted = 0
        self.later: dict[str, set[str]] = {}  # ids of the delayed events of a name
        self.listed: list[str] = []  # RQ's list
        self.steered: dict[str, list[str]] = {}
        self._was_so = False
        self.index: dict[str, set[str]] = {}
        self.finished: dict[str, set[str]] = {}

    def worker(self, name: str) -> Worker:
        return self.workers.setdefault(name, Worker())

    # Ringing.

    def _flush(self, rung: Iterable[tuple[str, str]]) -> None:
        for name, job_id in rung:
            if name not in self.ready:
                self.ready.append(name)
            self.listed.append(job_id)

    def _flush_front(self, front: Sequence[tuple[str, str]]) -> None:
        names = [name for name, _ in front]
        self.ready = names + [name for name in self.ready if name not in names]
        self.listed = [job_id for _, job_id in front] + self.listed

    def _if_mail(self, name: str) -> list[tuple[str, str]]:
        head = self.fsms[name].head() if name in self.fsms else None
        return [(name, head)] if head else []

    # Clients.

    def _addressee(self, name: str, born: str = "") -> tuple[Fsm | None, str]:
        fsm = self.fsms.get(name)
        if fsm is None or fsm.status == "purging" or born not in ("", fsm.born):
            return None, "UNKNOWN"
        if fsm.status == "finished":
            return None, f"FINISHED {fsm.state}"
        return fsm, ""

    def _create(self, name: str, entry: str, rung: list[tuple[str, str]]) -> str:
        known = self.fsms.get(name)
        if known is not None:
            return "EXISTS" if known.status == "purging" else "EXISTS Gate"
        fsm = self.fsms[name] = Fsm(self._born_of(name), mailbox=[entry])
        self.jobs[entry] = Job(name, ENTRY, fsm.born)
        self.index.setdefault(START, set()).add(name)
        rung.append((name, entry))
        return "CREATED"

    def start(self, births: Sequence[tuple[str, str]]) -> list[str]:
        words, rung = [], list[tuple[str, str]]()
        for name, entry in births:
            lived = self.jobs.get(entry)
            if lived is not None and lived.fsm is not None:
                words.append("CREATED" if (lived.fsm, lived.event) == (name, ENTRY) else "BROKEN")
            else:
                words.append(self._create(name, entry, rung))
        self._flush(rung)
        return words

    def send(self, letters: Sequence[Letter]) -> list[str]:  # noqa: C901, PLR0912 - one script
        words: list[str] = []
        rung: list[tuple[str, str]] = []
        boxes: dict[str, _Box | None] = {}
        for letter in letters:
            if letter.name not in boxes:
                box, why = self._box(letter, rung)
                boxes[letter.name] = box
                if box is None:
                    words.append(why)
                    continue
            else:
                box = boxes[letter.name]
                if box is None or box.is_refused:
                    words.append("SKIPPED")
                    continue
                if letter.born not in ("", box.born):
                    words.append("UNKNOWN")
                    box.is_refused = True
                    continue
            words.append(self._post(letter, box, len(words)))
        dropped = set()
        for name, box in boxes.items():
            if box is None or not box.ids:
                continue
            fsm = self.fsms[name]
            fsm.mailbox += box.ids
            over = min(max(0, len(fsm.mailbox) - MAX_MAILBOX - box.spare), len(box.ids))
            if over:
                del fsm.mailbox[-over:]
                for job_id, at in zip(box.ids[-over:], box.at[-over:], strict=True):
                    del self.jobs[job_id]
                    dropped.add(job_id)
                    words[at] = "SKIPPED"
                words[box.at[-over]] = f"FULL {MAX_MAILBOX}"
            if fsm.mailbox == box.ids[: len(box.ids) - over] and fsm.mailbox and fsm.moves:
                rung.append((name, box.ids[0]))
        for box in boxes.values():
            for at, job_id in box.again if box else ():
                if job_id in dropped:
                    words[at] = "SKIPPED"
        self._flush(rung)
        return words

    def _box(self, letter: Letter, rung: list[tuple[str, str]]) -> tuple[_Box | None, str]:
        fsm, why = self._addressee(letter.name, letter.born)
        if fsm:
            return _Box(fsm.born), ""
        if why.startswith("FINISHED"):
            return _Box(self.fsms[letter.name].born, over=why), ""
        if not letter.entry or letter.born:
            return None, why
        lived = self.jobs.get(letter.entry)
        if lived is not None and lived.fsm is not None:
            return _Box(lived.born, over=why), ""
        word = self._create(letter.name, letter.entry, rung)
        return (_Box(self.fsms[letter.name].born, spare=1), "") if word == "CREATED" else (None, word)

    def _post(self, letter: Letter, box: _Box, at: int) -> str:
        job_id = f"{letter.job_id[:-1]}-{box.born}" if letter.digest else letter.job_id
        said = f" {job_id}" if letter.digest else ""
        known = self.jobs.get(job_id)
        if known is not None and known.fsm is not None:
            same = known.digest == letter.digest if letter.digest else known.event == letter.event
            if same and known.fsm == letter.name:
                box.again.append((at, job_id))
                return f"DUPLICATE {known.place}{said}"
            word = f"CONFLICT{said}"
        elif known is not None:
            return f"DUPLICATE {known.place}{said}"
        elif box.over:
            word = box.over
        elif letter.if_version is not None and self.fsms[letter.name].version > letter.if_version:
            fsm = self.fsms[letter.name]
            word = f"STALE {fsm.version} {fsm.state}"
        elif letter.is_delayed and box.waiting(self.later.get(letter.name, ())) >= MAX_MAILBOX:
            word = f"FULL {MAX_MAILBOX}"
        else:
            self.jobs[job_id] = Job(
                letter.name,
                letter.event,
                box.born,
                to=letter.to,
                if_version=letter.if_version,
                digest=letter.digest,
            )
            if letter.is_delayed:
                self._put_off(letter.name, job_id)
                box.put_off = (box.put_off or 0) + 1
            else:
                box.ids.append(job_id)
                box.at.append(at)
            return f"SENT{said}"
        box.is_refused = True
        return word

    def _put_off(self, name: str, job_id: str) -> None:
        """An event that was just accepted waits for its time."""
        self._accepted += 1
        self.alarms[self._accepted] = Alarm(job_id, name)
        self.later.setdefault(name, set()).add(job_id)
        job = self.jobs[job_id]
        job.place, job.status, job.alarm = "later", "scheduled", self._accepted

    def _forget_alarm(self, name: str, job_id: str, number: int = 0) -> None:
        self.alarms.pop(number, None)
        self.later.get(name, set()).discard(job_id)
        if job_id in self.jobs:
            self.jobs[job_id].alarm = 0

    # Workers.

    def claim(  # noqa: C901, PLR0912, PLR0915 - one script
        self,
        worker: str,
        token: str,
        number: int,
        *,
        fsms: int,
        events: int,
        kept: Sequence[str],
        name: str = "",
        leaves_suspects: bool = False,
        found: Sequence[str] = (),
    ) -> list[Taken]:
        me = self.worker(worker)
        look = _Look(self, events)
        if number < me.number:
            return []
        if number == me.number:
            mine = [one for one, tok in me.claims.items() if tok == token and self._holds(one, worker, token)]
            return [look.open(one, token) for one in mine]
        rung = []
        for one, tok in list(me.claims.items()):
            if tok not in kept:
                del me.claims[one]
                if self._holds(one, worker, tok):
                    self.fsms[one].lock = None
                    del self.held[one]
                    rung += self._if_mail(one)
        self._flush(rung)

        looked = list(found)
        if name:
            popped = [name] if name in self.ready else []
        else:
            popped = self.ready[:fsms]
            looked += me.hand
            me.hand = []
            count = fsms if len(popped) == fsms else fsms + 10
            looked += self.listed[:count]
            del self.listed[:count]
        self.ready = [one for one in self.ready if one not in popped]
        taken: list[Taken] = []
        while popped:
            fsm = self.fsms.get(popped[0])
            is_suspect = fsm is not None and fsm.is_suspect
            if look.count >= events or (is_suspect and (taken or leaves_suspects)):
                break
            one = popped.pop(0)
            if fsm is not None and fsm.retry == "later":
                self.timers[one] = "later"
                continue
            if fsm is None or fsm.status in ("failed", "purging") or (fsm.paused and fsm.status != "finished"):
                continue
            opened = look.open(one, token)
            if not opened.mail:
                continue
            if fsm.lock is not None:
                self.held.setdefault(one, False)
                continue
            fsm.lock = (worker, token)
            me.claims[one] = token
            self.held[one] = False
            taken.append(opened)
            if is_suspect:
                break
        self.ready = popped + self.ready
        me.number = number
        for job_id in looked:
            self._adopt(job_id, look.seen)
        return taken

    def _holds(self, name: str, worker: str, token: str) -> bool:
        return name in self.fsms and self.fsms[name].lock == (worker, token)

    def _adopt(self, job_id: str, seen: set[str]) -> None:
        """Look at an id that was found on RQ's list."""
        job = self.jobs.get(job_id)
        if job_id in seen or job is None or job.fsm is None:
            return
        if job.place == "done":
            job.status = "finished"
        elif job.place == "later":
            if job.status != "canceled":
                job.status = "scheduled"
        elif job.place in ("failed", "gone") and (
            job.status == "queued" or (job.status == "started" and not job.has_ended)
        ):
            fsm, _ = self._addressee(job.fsm, job.born)
            if fsm is None:
                job.status, job.has_ended = "failed", True
                return
            fsm.mailbox.append(job_id)
            job.place, job.has_ended, job.attempt = "mail", False, 0
            if len(fsm.mailbox) == 1 and fsm.moves:
                self._flush([(job.fsm, job_id)])

    def run(self, taken: Taken, count: int) -> Block:
        """Run the first events of a claim, as a worker does: pure, nothing changes."""
        return _Run(taken).run(count)

    def commit(self, worker: str, nonce: int, blocks: Sequence[Block]) -> list[str]:
        me = self.worker(worker)
        known = me.verdicts.get(nonce % 16)
        if known and known[0] == nonce:
            return known[1]
        words, freed, rung = [], [], list[tuple[str, str]]()
        holders = [self.fsms[block.name].lock if block.name in self.fsms else None for block in blocks]
        for block, holder in zip(blocks, holders, strict=True):
            if holder != (worker, block.token):
                words.append("STALE")
                continue
            words.append(self._write(block, rung))
            freed.append(block.name)
        self._flush(rung)
        for name in freed:
            self.fsms[name].lock = None
            me.claims.pop(name, None)
            self.held.pop(name, None)
        if not known or known[0] < nonce:
            me.verdicts[nonce % 16] = (nonce, words)
        return words

    def _write(self, block: Block, rung: list[tuple[str, str]]) -> str:  # noqa: C901, PLR0912 - one branch an operation
        fsm = self.fsms[block.name]
        for name, value in block.fields.items():
            setattr(fsm, name, value)
        if block.before != block.state or block.ending == "finished":
            self.index[block.before].discard(block.name)
            index = self.finished if block.ending == "finished" else self.index
            index.setdefault(block.state, set()).add(block.name)
        if "timer" in block.fields:
            if fsm.timer is None:
                self.chimes.pop(block.name, None)
            elif fsm.timer.when == "later":
                self.chimes[block.name] = "later"
        del fsm.urgent[: block.urgent]
        del fsm.mailbox[: len(block.done) - block.urgent]
        owes, waits = block.urgent > 0, False
        for op, job_id, *more in block.operations:
            if op == "D":
                self._end(job_id, "done", "finished")
            elif op == "F":
                self._end(job_id, "failed", "failed")
            elif op == "G":
                if job_id in self.jobs:
                    job = self.jobs[job_id]
                    self._end(job_id, "gone", "canceled" if job.status == "canceled" else "failed")
            elif op == "N":
                self.jobs[job_id] = Job(block.name, more[0], fsm.born)
            elif op == "R":
                fsm.retry = self.timers[block.name] = "later"
                waits = True
                if job_id in self.jobs:
                    self.jobs[job_id].status, self.jobs[job_id].attempt = "scheduled", int(more[0])
            elif op == "U":
                fsm.urgent.append(job_id)
                owes = True
            else:
                self._deliver(block.name, job_id, more[0], rung, is_delayed=op == "L")
        head = fsm.head() if owes else (fsm.mailbox or [None])[0]
        if waits:
            return "AT"
        if block.ending == "failed" or head is None:
            return "REST"
        rung.append((block.name, head))
        return "READY"

    def _end(self, job_id: str, place: str, status: str) -> None:
        job = self.jobs.setdefault(job_id, Job(None, None, ""))
        job.place, job.status, job.has_ended = place, status, True

    def _deliver(self, source: str, job_id: str, target: str, rung: list[tuple[str, str]], *, is_delayed: bool) -> None:
        if job_id in self.jobs:
            job_id = f"{job_id}r{self._time_of(source)}"
        fsm, _ = self._addressee(target)
        waiting = self.later.get(target, ()) if is_delayed else fsm.mailbox if fsm else ()
        if fsm is None or len(waiting) >= 2 * MAX_MAILBOX:
            self.jobs[job_id] = Job(target, "note", "", "failed", "failed", has_ended=True)
            return
        self.jobs[job_id] = Job(target, "note", fsm.born)
        if is_delayed:
            self._put_off(target, job_id)
            return
        fsm.mailbox.append(job_id)
        if len(fsm.mailbox) == 1 and fsm.moves:
            rung.append((target, job_id))

    def release(self, worker: str, pairs: Sequence[tuple[str, str]], *, tail: bool) -> list[str]:
        me, words, front, rung = self.worker(worker), [], list[tuple[str, str]](), list[tuple[str, str]]()
        for name, token in pairs:
            if not self._holds(name, worker, token):
                words.append("STALE")
                continue
            words.append("RELEASED")
            self.fsms[name].lock = None
            me.claims.pop(name, None)
            self.held.pop(name, None)
            if tail:
                rung += self._if_mail(name)
            else:
                front += self._if_mail(name)
        self._flush_front(front)
        self._flush(rung)
        return words

    def extend(self, worker: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
        words = []
        for name, token in pairs:
            is_held = self._holds(name, worker, token)
            if is_held:
                self.held[name] = False
            words.append("EXTENDED" if is_held else "STALE")
        return words

    def recover(self, dead: Sequence[str]) -> tuple[int, int]:
        freed, rehung, front, rung = 0, 0, list[tuple[str, str]](), list[tuple[str, str]]()
        for worker in dead:
            me = self.worker(worker)
            for name, token in me.claims.items():
                if self._holds(name, worker, token):
                    self._free(name, front, rung)
                    freed += 1
            me.claims = {}
            for job_id in reversed(me.hand):
                if job_id in self.jobs and self.jobs[job_id].fsm is not None:
                    self.listed.insert(0, job_id)
                    rehung += 1
            me.hand = []
        for name in sorted(name for name, is_over in self.held.items() if is_over):
            if name in self.fsms and self.fsms[name].lock:
                self.held[name] = False
            else:
                self._free(name, front, rung)
                freed += 1
        self._flush_front(front)
        self._flush(rung)
        return freed, rehung

    def _free(self, name: str, front: list[tuple[str, str]], rung: list[tuple[str, str]]) -> None:
        self.held.pop(name, None)
        if name in self.fsms:
            fsm = self.fsms[name]
            fsm.lock = None
            fsm.tries += 1
            fsm.is_suspect, fsm.probation = True, 0
            (front if fsm.tries == 1 else rung).extend(self._if_mail(name))

    def due(self, nonce: str) -> int:
        rung = list[tuple[str, str]]()
        count = 0
        for number in [number for number, alarm in self.alarms.items() if alarm.when == "due"]:
            count += self._fire(number, rung)
        before = len(rung)
        for name in sorted(name for name, when in self.timers.items() if when == "due"):
            del self.timers[name]
            head = self._if_mail(name)
            if head and self.fsms[name].retry:
                job = self.jobs.get(head[0][1])
                if job is not None and job.status == "scheduled":
                    job.status = "queued"
                rung += head
        count += len(rung) - before + self._chime(nonce, rung)
        self._flush(rung)
        return count

    def _chime(self, nonce: str, rung: list[tuple[str, str]]) -> int:
        """Fire the timers that are due; gives how many."""
        count = 0
        fired = 0
        for name in sorted(name for name, when in self.chimes.items() if when == "due"):
            fsm, _ = self._addressee(name)
            timer = None if fsm is None else fsm.timer
            if fsm is None or timer is None or timer.when == "failed":
                del self.chimes[name]
            elif timer.when == "later":
                self.chimes[name] = "later"
            elif len(fsm.mailbox) < 2 * MAX_MAILBOX:
                del self.chimes[name]
                fired += 1
                while (job_id := f"{nonce}--t{fired}v{timer.arm}") in self.jobs:
                    fired += 1
                self.jobs[job_id] = Job(name, "chime", fsm.born, arm=timer.arm)
                fsm.mailbox.append(job_id)
                if len(fsm.mailbox) == 1 and fsm.moves:
                    rung.append((name, job_id))
                count += 1
        return count

    def _fire(self, number: int, rung: list[tuple[str, str]]) -> bool:
        """A delayed event is due: tell whether it is settled now, and not put off or long gone."""
        alarm = self.alarms[number]
        name, job_id = alarm.name, alarm.job_id
        job, fsm = self.jobs.get(job_id), self.fsms.get(name)
        if job is not None and (job.place != "later" or job.alarm != number):
            del self.alarms[number]
            if job.place != "later":
                self.later.get(name, set()).discard(job_id)
            return False
        is_mine = job is not None and fsm is not None and fsm.born == job.born and fsm.status != "purging"
        if job is None or fsm is None or job.status == "canceled" or not is_mine:
            self._forget_alarm(name, job_id, number)
            if job is not None:
                self._end(job_id, "gone", "canceled" if job.status == "canceled" else "failed")
            return True
        if len(fsm.mailbox) >= 2 * MAX_MAILBOX:
            return False
        self._forget_alarm(name, job_id, number)
        job.place, job.status, job.has_ended = "mail", "queued", False
        fsm.mailbox.append(job_id)
        if len(fsm.mailbox) == 1 and fsm.moves:
            rung.append((name, job_id))
        return True

    # Operators.

    def cancel(self, job_id: str) -> str:
        job = self.jobs.get(job_id)
        if job is None or job.fsm is None:
            return "UNKNOWN"
        is_cancelled = job.status == "canceled"
        if job.place == "later":
            self._forget_alarm(job.fsm, job_id, job.alarm)
            self._end(job_id, "gone", "canceled")
            return "CANCELLED"
        if job.place != "mail":
            return "CANCELLED" if is_cancelled and job.place == "gone" else "ENDED"
        fsm = self.fsms.get(job.fsm)
        if fsm and fsm.lock and job_id in (*fsm.urgent, *fsm.mailbox):
            return "HELD"
        waited, job.status = job.status == "scheduled", "canceled"
        if waited and fsm and fsm.head() == job_id:
            fsm.retry = "due"
            self.timers.pop(job.fsm, None)
            self._flush([(job.fsm, job_id)])
        return "CANCELLED"

    def purge(self, name: str, born: str, most: int) -> str:
        fsm = self.fsms.get(name)
        if fsm is None or born not in ("", fsm.born):
            return "UNKNOWN"
        if name in self.ready:
            self.ready.remove(name)
        fsm.status = "purging"
        if fsm.lock:
            return "HELD"
        delayed = self._later_of(name)[:most]
        for job_id in (*fsm.urgent[:most], *fsm.mailbox[:most], *delayed):
            if job_id in self.jobs and self.jobs[job_id].place in ("mail", "later"):
                self._end(job_id, "gone", "failed")
        for job_id in delayed:
            job = self.jobs.get(job_id)
            self._forget_alarm(name, job_id, job.alarm if job else 0)
        del fsm.urgent[:most], fsm.mailbox[:most]
        if fsm.urgent or fsm.mailbox or self.later.get(name):
            return "AGAIN"
        del self.fsms[name]
        self.held.pop(name, None)
        if fsm.retry:
            self.timers.pop(name, None)
        # Of one whose timer is not armed there is no alarm.
        self.chimes.pop(name, None)
        for index in (self.index, self.finished):
            index.get(fsm.state, set()).discard(name)
        return "PURGED"

    def expire(self) -> tuple[dict[str, str], dict[str, str]]:
        """Take away those that have finished, but those with mail, or in somebody's hands, or that are being purged."""
        gone, left = dict[str, str](), dict[str, str]()
        for name in list(self.finished.get(END, ())):
            fsm = self.fsms[name]
            is_at_rest = not (fsm.lock or fsm.mailbox or fsm.urgent or self.later.get(name) or fsm.timer or fsm.retry)
            if fsm.status != "finished" or not is_at_rest:
                left[name] = fsm.born
                continue
            gone[name] = fsm.born
            del self.fsms[name]
            self.held.pop(name, None)
            self.finished[END].discard(name)
        return gone, left

    def steer(self, order: Order, failure: Failure) -> list[str]:
        """An operator's verb; what was done is remembered by its nonce."""
        known = self.steered.get(order.nonce)
        if known is None:
            known = self._steer(order, failure)
            if known[0] in ("RETRIED", "SKIPPED", "PAUSED", "RESUMED") and not self._was_so:
                self.steered[order.nonce] = known
        return known

    def _steer(self, order: Order, failure: Failure) -> list[str]:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one script
        fsm, name, self._was_so = self.fsms.get(order.name), order.name, False
        if fsm is None or fsm.status == "purging" or fsm.born != order.born:
            return ["UNKNOWN"]
        if fsm.status == "finished":
            return ["FINISHED", fsm.state]
        if order.verb == "pause":
            self._was_so = fsm.paused
            if not fsm.paused:
                fsm.paused = True
                self.ready = [one for one in self.ready if one != name]
            return ["PAUSED"]
        if order.verb == "resume":
            if not fsm.paused:
                return ["NOTHING"]
            fsm.paused = False
            if fsm.status != "failed" and not fsm.lock:
                self._flush(self._if_mail(name))
            return ["RESUMED"]
        head = fsm.head() or ""
        if order.verb == "retry" and fsm.status != "failed" and fsm.retry and head:
            self._was_so = fsm.retry == "due"
            job = self._own(head, name)
            if fsm.retry == "later":
                fsm.retry = "due"
                self.timers.pop(name, None)
                if job:
                    job.status = "queued"
                self._flush([(name, head)])
            return ["RETRIED", head, (job.event if job else "") or ""]
        is_entry = fsm.status == "starting" or (fsm.status == "failed" and failure.kind == "entry")
        if order.verb == "skip" and is_entry:
            return ["CANNOT"]
        if fsm.lock:
            return ["HELD"]
        if fsm.status == "failed":
            return self._put_right(fsm, order, failure)
        if order.verb == "retry":
            job = self._own(failure.job_id, name) if fsm.status != "starting" else None
            if job is None or job.place != "failed":
                return ["NOTHING"]
            if failure.version != fsm.version:
                return ["MOVED"]
            self._forget_tries(fsm, name)
            self._revive(job, fsm, failure)
            fsm.mailbox.insert(0, failure.job_id)
            self._flush([(name, fsm.head() or "")])
            return ["RETRIED", failure.job_id, job.event or ""]
        if not head:
            return ["NOTHING"]
        job = self._own(head, name)
        if fsm.urgent:
            fsm.urgent.pop(0)
            fsm.owes = (fsm.urgent or [""])[0]
        else:
            # What a timer sent goes behind all mail, for a worker to see what becomes of the timer.
            for _ in fsm.mailbox:
                if arm_of(head) is None or (job and job.place == "mail"):
                    break
                fsm.mailbox.append(fsm.mailbox.pop(0))
                head = fsm.mailbox[0]
                job = self._own(head, name)
            if arm_of(head) is not None and not (job and job.place == "mail"):
                return ["NOTHING"]
            fsm.mailbox.pop(0)
            if arm_of(head) is not None:
                fsm.mailbox.append(head)
        if job and job.place == "mail":
            self._end(head, "gone", "canceled")
        self._forget_tries(fsm, name)
        self._flush(self._if_mail(name))
        return ["SKIPPED", head, (job.event if job else "") or ""]

    def _put_right(self, fsm: Fsm, order: Order, failure: Failure) -> list[str]:
        """Retry or skip what an FSM cannot go on without."""
        name, job_id = order.name, failure.job_id
        if failure.version != fsm.version or failure.kind in ("", "mail"):
            return ["MOVED"]
        job = self._own(job_id, name)
        event = (job.event if job else None) or failure.event
        if order.verb == "retry" and not job and not event:
            return ["NOTHING"]
        if job and job.place == "mail":
            fsm.mailbox = [one for one in fsm.mailbox if one != job_id]
            fsm.urgent = [one for one in fsm.urgent if one != job_id]
            if order.verb == "skip":
                self._end(job_id, "gone", "canceled")
        self._forget_tries(fsm, name)
        if order.verb == "skip":
            fsm.status, fsm.owes, fsm.failed_from = "running", "", ""
            self._flush(self._if_mail(name))
            return ["SKIPPED", job_id, event]
        if job and job.place != "done":
            self._revive(job, fsm, failure)
        else:
            job_id = order.nonce
            self.jobs[job_id] = Job(name, event, fsm.born)
        fsm.failed_from = ""
        if failure.kind == "entry":
            fsm.mailbox.insert(0, job_id)
            fsm.status, fsm.owes = "starting", ""
        else:
            fsm.urgent.insert(0, job_id)
            fsm.status, fsm.owes = "running", job_id
        self._flush([(name, job_id)])
        return ["RETRIED", job_id, event]

    def _own(self, job_id: str, name: str) -> Job | None:
        job = self.jobs.get(job_id)
        return job if job and job.fsm == name and job.born == self.fsms[name].born else None

    def _revive(self, job: Job, fsm: Fsm, failure: Failure) -> None:
        job.place, job.status, job.has_ended, job.attempt = "mail", "queued", False, 0
        if failure.is_last and job.if_version is not None:
            job.if_version = fsm.version

    def _forget_tries(self, fsm: Fsm, name: str) -> None:
        self.held.pop(name, None)
        fsm.retry, fsm.tries, fsm.is_suspect, fsm.probation = "", 0, False, 0
        self.timers.pop(name, None)

    # Time.

    def lapse(self, name: str) -> None:
        """The lease of an FSM is over, and its lock with it."""
        if name in self.fsms:
            self.fsms[name].lock = None
        if name in self.held:
            self.held[name] = True

    def come(self) -> None:
        """The time of all that waits to be tried again has come; nobody has looked yet."""
        for fsm in self.fsms.values():
            fsm.retry = fsm.retry and "due"
            if fsm.timer and fsm.timer.when == "later":
                fsm.timer = replace(fsm.timer, when="due")
        self.chimes = dict.fromkeys(self.chimes, "due")
        self.timers = dict.fromkeys(self.timers, "due")
        for alarm in self.alarms.values():
            alarm.when = "due"

    def forget(self, worker: str) -> None:
        """What Redis remembered of a worker has expired; its hand is emptied when it is seen to be dead."""
        me = self.worker(worker)
        self.workers[worker] = Worker(hand=me.hand)


@dataclass
class _Box:
    """An FSM during one call of `send`."""

    born: str
    over: str = ""
    spare: int = 0
    put_off: int | None = None
    is_refused: bool = False
    ids: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    again: list[tuple[int, str]] = field(default_factory=list)

    def waiting(self, later: Iterable[str]) -> int:
        """Count the delayed events: as they are at the first look of a call, and those of this call."""
        if self.put_off is None:
            self.put_off = len(list(later))
        return self.put_off


class _Look:
    """What one claim has looked at: an id that lies in a mailbox twice is to be applied once."""

    def __init__(self, model: Model, events: int) -> None:
        self._model = model
        self._events = events
        self.count = 0
        self.seen: set[str] = set()

    def open(self, name: str, token: str) -> Taken:
        fsm = self._model.fsms[name]
        allowed = 0
        if fsm.is_suspect:
            allowed = 1 if fsm.tries else fsm.probation or 1
        most = max(1, min(self._events - self.count, allowed or _MOST_MAIL))
        urgent = fsm.urgent[:most] if fsm.owes else []
        mail = []
        for job_id in [*urgent, *fsm.mailbox[: most - len(urgent)]]:
            job = copy(self._model.jobs.get(job_id))
            if job is not None and job.event is None:
                job = None
            if job is not None and job_id in self.seen:
                job.place = "done"
            self.seen.add(job_id)
            mail.append((job_id, job))
        self.count += len(mail)
        seen = copy(fsm)
        seen.applied = list(fsm.applied)
        attempts = None
        if fsm.retry:
            first = self._model.jobs.get(mail[0][0]) if mail else None
            attempts = first.attempt if first else 0
        probation = None
        if allowed:
            is_more = len(fsm.mailbox) + len(urgent) > len(mail)
            probation = 2 * allowed if is_more and allowed < _MOST_PROBATION else 0
        return Taken(name, token, seen, len(urgent), mail, attempts, probation)


class _Run:
    """The work on one claimed FSM."""

    def __init__(self, taken: Taken) -> None:
        self.taken = taken
        self.fsm = copy(taken.fsm)
        self.fsm.applied = list(taken.fsm.applied)
        self.block = Block(taken.name, taken.token, taken.fsm.state)
        self.is_owing = False
        self.is_retried = False
        self.count = 0
        self.arm: int | None = None

    def run(self, count: int) -> Block:  # noqa: C901 - one activation
        before, fsm, block = self.taken.fsm, self.fsm, self.block
        owed = fsm.owes if fsm.status == "running" else ""
        for n, (job_id, job) in enumerate(self.taken.mail[:count]):
            if self._is_over():
                break
            again = self._owed(job_id, job, owed) if owed or fsm.status == "starting" else None
            owed = ""
            if again:
                is_gone = not self._is_whole(job)
                if is_gone:
                    self._one(job_id, job, n)
                self._make(*again)
                if is_gone:
                    continue
                if self._is_over():
                    break
            self._one(job_id, job, n)
        block.urgent = min(self.taken.urgent, len(block.done))
        block.state = fsm.state
        for name in ("state", "status", "applied", "failed_from", "timer", "has_error"):
            if getattr(fsm, name) != getattr(before, name):
                block.fields[name] = getattr(fsm, name)
        block.fields["version"] = fsm.version
        if self.taken.probation is not None and (self.count or block.done):
            self._clear(min(count, len(self.taken.mail)))
        if self.taken.attempts is not None and not self.is_retried:
            block.fields["retry"] = ""
        # While an urgent event stays where it is, the FSM goes on to owe it.
        if self.is_owing or (before.owes and len(block.done) >= self.taken.urgent):
            block.fields["owes"] = fsm.owes if self.is_owing else ""
        return block

    def _clear(self, given: int) -> None:
        """Clear a suspect, step by step; so many events were given to the worker."""
        fields, is_all_done = self.block.fields, len(self.block.done) == given
        fields["tries"] = 0
        if is_all_done and not self.taken.probation and not self.is_owing:
            fields["is_suspect"], fields["probation"] = False, 0
        elif is_all_done:
            fields["probation"] = self.taken.probation or 1

    def _owed(self, job_id: str, job: Job | None, owed: str) -> tuple[str, str] | None:
        if self.fsm.status == "starting":
            return None if self._is_entry(job) else (derived_id(job_id, "entry"), ENTRY)
        if (job_id == owed and self._is_whole(job)) or self.fsm.state not in HARD:
            return None
        return derived_id(owed, "again"), HARD[self.fsm.state]

    def _is_over(self) -> bool:
        return self.fsm.status == "failed" or self.is_retried or bool(self.fsm.tries and self.count)

    def _is_whole(self, job: Job | None) -> bool:
        return job is not None and (job.place, job.born) == ("mail", self.fsm.born) and job.status != "canceled"

    def _is_entry(self, job: Job | None) -> bool:
        return job is not None and self._is_whole(job) and job.event == ENTRY

    def _make(self, job_id: str, event: str) -> None:
        """An event that the FSM owes itself was taken away: it is made again."""
        self.block.operations.append(("N", job_id, event))
        if not self._apply(job_id, Job(self.taken.name, event, self.fsm.born), 1):
            self._owe(job_id)

    def _one(self, job_id: str, job: Job | None, n: int) -> None:
        is_done = True
        timer = self.fsm.timer
        stands = job is not None and timer is not None and job.arm == timer.arm
        is_lost = job is None or job.place == "gone" or (job.place == "mail" and job.status == "canceled")
        if (
            is_lost
            and timer
            and timer.when == "due"
            and arm_of(job_id) == timer.arm
            and (job is None or job.born == self.fsm.born)
        ):
            self.fsm.timer = None
        if job is None or (job.place == "mail" and job.status == "canceled"):
            self.block.operations.append(("G", job_id))
        elif job.place == "mail":
            if job.born != self.fsm.born:
                self.block.operations.append(("G", job_id))
            elif self.fsm.status == "finished" or (job.arm is not None and not stands):
                self.block.operations.append(("D", job_id))
            else:
                is_done = self._apply(job_id, job, 1 + (self.taken.attempts or 0 if n == 0 else 0))
        if is_done:
            self.block.done.append(job_id)

    def _apply(self, job_id: str, job: Job, attempt: int) -> bool:
        """Apply an event; False where it is to be tried again."""
        fsm, key = self.fsm, (self.fsm.state, job.event or "")
        self.count += 1
        self.arm = job.arm
        fsm.version += 1
        if fsm.tries > MAX_ATTEMPTS:
            self._fail(job_id, key)
        elif fsm.status == "starting":
            fsm.status = "running"
            self._done(job_id, START)
        elif job.if_version is not None and job.if_version != fsm.version - 1 and attempt == 1:
            self.block.operations.append(("D", job_id))
        elif key in RAISING and job.event in RETRIED and attempt < ATTEMPTS:
            self.is_retried = fsm.has_error = True
            self.block.operations.append(("R", job_id, str(attempt)))
            return False
        elif key in RAISING:
            self._fail(job_id, key)
        elif key in EDGES:
            self._done(job_id, EDGES[key])
            if job.event == "tell":
                self.block.operations.append(("S", derived_id(job_id, "s1"), job.to))
            elif job.event == "defer":
                self.block.operations.append(("L", derived_id(job_id, "s1"), job.to))
            self._follow(job_id)
        else:
            self.block.operations.append(("D", job_id))
        return True

    def _fail(self, job_id: str, key: tuple[str, str]) -> None:
        self.block.operations.append(("D" if key in SOFT else "F", job_id))
        self.fsm.has_error = self.fsm.has_error or key not in SOFT
        is_starting = self.fsm.status == "starting"
        if key[1] == "chime" and self.fsm.timer and self.arm == self.fsm.timer.arm:
            self.fsm.timer = replace(self.fsm.timer, when="failed")
        if is_starting or HARD.get(key[0]) == key[1]:
            self.fsm.status = self.block.ending = "failed"
            self.fsm.owes, self.is_owing = job_id, True
            self.fsm.failed_from = "starting" if is_starting else ""

    def _done(self, job_id: str, target: str) -> None:
        self.fsm.applied.append(job_id)
        self.fsm.has_error = False
        self.fsm.state = target
        self.fsm.timer = Timer(self.fsm.version) if target == START else None
        self.block.operations.append(("D", job_id))
        if target == END:
            self.fsm.status = self.block.ending = "finished"

    def _follow(self, cause: str) -> None:
        hard = HARD.get(self.fsm.state)
        if hard is None or self.fsm.status != "running":
            return
        job_id = derived_id(cause, "h1")
        self.block.operations.append(("N", job_id, hard))
        if self.fsm.tries or not self._apply(job_id, Job(self.taken.name, hard, self.fsm.born), 1):
            self._owe(job_id)

    def _owe(self, job_id: str) -> None:
        self.block.operations.append(("U", job_id))
        self.fsm.owes, self.is_owing = job_id, True
