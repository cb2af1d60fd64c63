"""Whatever becomes of an FSM: what is armed rings, once, and what was taken away does not."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fsm import Machine, Reject, RetryPolicy, Settings, Stay, Transition, on
from fsm.engine import Behaviour, Event, Life, drive, step, timers
from fsm.engine.timers import TICK, read_timers, write_timers

T = Transition[dict[str, Any]]
KEYS = ("one", "two", "x", "y")
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Clock(Machine):
    settings = Settings(timer="7s", overdue="restart", endless=True, retry={"x": RetryPolicy(attempts=2)})
    diagram = """
    stateDiagram-v2
        [*] --> a
        a --> a : x after 3s
        a --> b : go
        b --> a : go
        b --> b : y? after 5s
        b --> a : x after 20s
        a --> b : x fails
        a --> [*] : end
    """

    def on_timer(self, t: T) -> None:
        self.act(t)

    @on("x")
    @on("y")
    @on("go")
    def act(self, t: T) -> Any:
        acts, answer = PLANS.pop() if PLANS else ([], "move")
        for kind, key, length in acts:
            if kind == "after":
                t.after(length, "x", key=key, scope="fsm" if length % 2 else "state")
            elif kind == "cancel":
                t.cancel(key)
            elif kind == "again":
                t.reschedule(None if length == 9 else length)
        if answer == "fail":
            raise ValueError
        return {"stay": Stay(), "reject": Reject("no")}.get(answer) if t.event != TICK else None


PLANS: list[tuple[list[tuple[str, str, int]], str]] = []
acts = st.tuples(st.sampled_from(["after", "cancel", "again"]), st.sampled_from(KEYS), st.integers(0, 9))
plans = st.tuples(st.lists(acts, max_size=3), st.sampled_from(["move", "move", "stay", "reject", "fail"]))
turns = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(["x", "y", "go", TICK]), plans),
    st.tuples(st.just("wait"), st.integers(0, 30), st.booleans()),
    st.tuples(st.just("apply"), st.integers(0, 3), plans),
)


class World:
    """One FSM, its alarms and its mailbox, without Redis."""

    def __init__(self) -> None:
        self.behaviour = Behaviour(Clock())
        self.now = 1_000_000
        self.life = Life("fsm", "a", b"{}", 0, "running", Clock.definition, 0)
        self.alarms: dict[str, int] = {}
        self.mailbox: list[Event] = []
        self.applied: set[tuple[str, int]] = set()
        self.ids = 0
        self.keep(timers.adopted(Clock.definition, "a", self.now))

    def next_id(self) -> int:
        self.ids += 1
        return self.ids

    def keep(self, after: Any) -> None:
        """Do with the alarms what a commit does."""
        armed, gone = timers.moved(self.life.timers, after)
        self.alarms.update({key: at_ms for at_ms, key in armed})
        for key in gone:
            self.alarms.pop(key, None)
        self.life.timers = after

    def apply(self, event: Event, plan: Any) -> None:
        PLANS[:] = [plan]
        life, behaviour = self.life, self.behaviour
        if timers.stale(life.timers, event):
            return
        policy = timers.overdue(behaviour, life.timers, event, self.now)
        if policy != "fire":
            self.keep(timers.pass_over(behaviour, life, event, policy, self.now))
            return
        decision = drive(step(behaviour, life, event))
        mark = timers.fired(event)
        if decision.kind == "retry":
            self.mailbox.insert(0, Event(event.job_id, event.name, event.raw, event.meta, event.attempt + 1))
        elif mark is not None:
            assert mark not in self.applied
            self.applied.add(mark)
        self.keep(timers.advance(life.timers, decision, behaviour, self.now))

    def wait(self, seconds: int) -> None:
        """Let time go by, and what is due ring."""
        self.now += seconds * 1000
        for key, at_ms in sorted(self.alarms.items(), key=lambda one: one[::-1]):
            if at_ms <= self.now:
                del self.alarms[key]
                timer = self.life.timers[key]
                job_id = f"nonce--t{self.next_id()}v{timer.arm}"
                meta = {"timer": key, "due_ms": at_ms}
                self.mailbox.append(Event(job_id, timers.event_of(key, timer), timer.data, meta))

    def check(self) -> None:
        fresh = [event for event in self.mailbox if not timers.stale(self.life.timers, event)]
        marks = [mark for event in fresh if (mark := timers.fired(event))]
        pending = {key for key, _ in marks}
        assert len(marks) == len(pending)
        for key, timer in self.life.timers.items():
            # It will ring at its time; or it has rung; or its event has failed, and is kept for an operator.
            assert [self.alarms.get(key) == timer.at_ms, key in pending, not timer.at_ms].count(True) == 1
        assert set(self.alarms) <= set(self.life.timers)
        assert read_timers(write_timers(self.life.timers)) == self.life.timers


@quick
@given(st.lists(turns, max_size=40))
def test_each_timer_has_its_alarm_or_one_event_that_is_not_stale(script: list[Any]) -> None:
    # Seen to fail where alarms of timers that are gone stayed, and where one that began anew kept its old time.
    world = World()
    for what, first, second in script:
        if what == "send":
            world.apply(Event(f"job{world.next_id()}", first), second)
        elif what == "wait":
            world.wait(first)
        elif world.mailbox:
            world.apply(world.mailbox.pop(first % len(world.mailbox)), second)
        world.check()
