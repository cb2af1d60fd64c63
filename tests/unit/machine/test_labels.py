from __future__ import annotations

import pytest

from fsm.machine.graph import Guard
from fsm.machine.labels import Label, read_label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pay", [Label("pay")]),
        (" pay ", [Label("pay")]),
        ("order.paid", [Label("order.paid")]),
        ("half-configured", [Label("half-configured")]),
        ("zurück_2", [Label("zurück_2")]),
        ("a, b,c", [Label("a"), Label("b"), Label("c")]),
        ("pay [rich]", [Label("pay", Guard("rich"))]),
        ("pay[rich]", [Label("pay", Guard("rich"))]),
        ("pay [ not  rich ]", [Label("pay", Guard("rich", negated=True))]),
        ("pay [else]", [Label("pay", Guard("else"))]),
        ("ship!", [Label("ship", mark="!")]),
        ("ship! ", [Label("ship", mark="!")]),
        ("ship! [ready]", [Label("ship", Guard("ready"), "!")]),
        ("beat?", [Label("beat", mark="?")]),
        ("expire after 24h", [Label("expire", after_ms=86_400_000)]),
        ("expire [idle] after 1d12h", [Label("expire", Guard("idle"), after_ms=129_600_000)]),
        ("ship fails", [Label("ship", fails=True)]),
        ("fails", [Label("fails")]),
        ("after after 1s", [Label("after", after_ms=1_000)]),
        ("a [x], b fails", [Label("a", Guard("x")), Label("b", fails=True)]),
    ],
)
def test_a_label_is_read(text: str, expected: list[Label]) -> None:
    assert read_label(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        ("", "missing", "`EVENT`"),
        ("a,", "missing", "`EVENT`"),
        (", a", "missing", "`EVENT`"),
        ("2fast", "name of an event", "letters"),
        ("a:b", "name of an event", "letters"),
        ("[guard]", "name of an event", "letters"),
        ("a..b", "name of an event", "letters"),
        ("a!!", "more than one mark", "`a!`"),
        ("a!?", "more than one mark", "`a?`"),
        ("a !", "stands alone", "`a!`"),
        ("a [x]!", "stands alone", "`a!`"),
        ("a []", "cannot be read", "[not guard]"),
        ("a [x y]", "cannot be read", "[not guard]"),
        ("a [not]", "cannot be read", "[not guard]"),
        ("a [not else]", "means nothing", "other edge"),
        ("a [x", "cannot be read", "EVENT [guard]"),
        ("a [x] [y]", "cannot be read", "EVENT [guard]"),
        ("a! fails", "mark or a guard", "`a fails`"),
        ("a [x] fails", "mark or a guard", "`a fails`"),
        ("a failed", "cannot be read", "EVENT fails"),
        ("a after", "timer", "1d12h"),
        ("a after soon", "timer", "1d12h"),
        ("a after 0s", "takes no time", "`a!`"),
        ("a after 1h [x]", "behind its timer", "`a [guard] after 24h`"),
        ("a! after 1h", "hard and has a timer", "`a!`"),
    ],
)
def test_a_label_that_cannot_be_read_says_what_to_write(text: str, problem: str, remedy: str) -> None:
    _, faults = read_label(text)
    assert len(faults) == 1
    assert problem in faults[0].what
    assert remedy in faults[0].remedy


def test_all_faults_of_a_label_are_told_and_the_rest_is_read() -> None:
    labels, faults = read_label("a!!, b, c [")
    assert labels == [Label("b")]
    assert len(faults) == 2
