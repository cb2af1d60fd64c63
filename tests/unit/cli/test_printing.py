import io
from types import SimpleNamespace

import pytest

from fsm.cli import printing
from fsm.cli.printing import Styled


class Terminal(io.TextIOWrapper):
    """A stdout in whose place a person sits."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()  # type: ignore[attr-defined] # a BytesIO


def use(stream: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it stdout for the module alone: pytest puts its own in the place of `sys.stdout` before each test."""
    monkeypatch.setattr(printing, "sys", SimpleNamespace(stdout=stream))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal(io.BytesIO(), encoding="utf-8")
    use(stream, monkeypatch)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    return stream


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    use(stream, monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    return stream


def test_a_table_has_header_and_colour_on_a_terminal(terminal: Terminal) -> None:
    printing.print_table(("name", "state"), [("[bold]x", Styled("open", "red"))])

    text = shown(terminal)
    assert "name" in text
    assert "[bold]x" in text
    assert "\x1b[31mopen" in text


def test_a_table_is_tab_separated_without_header_and_colour_in_a_pipe(pipe: io.TextIOWrapper) -> None:
    printing.print_table(("name", "state"), [("a\tb", Styled("open", "red")), (None, 3)])

    assert shown(pipe) == "a\\tb\topen\n\t3\n"


def test_no_color_is_honoured(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    printing.print_line(Styled("open", "red"), "", "two")

    assert shown(terminal) == "open  two\n"


def test_a_long_line_is_not_broken_on_a_terminal(terminal: Terminal) -> None:
    printing.print_line("x" * 200)

    assert shown(terminal) == "x" * 200 + "\n"


def test_json_is_indented_for_a_person_only(terminal: Terminal) -> None:
    printing.print_json({"a": 1})
    printing.print_json({"a": 1}, is_line=True)

    assert shown(terminal) == '{\n  "a": 1\n}\n{"a":1}\n'


def test_an_array_comes_a_value_a_line(pipe: io.TextIOWrapper) -> None:
    printing.print_array(iter([]))
    printing.print_array(iter([1, {"a": (2,)}]))

    assert shown(pipe) == '[]\n[1,\n{"a":[2]}]\n'


def test_what_stdout_cannot_encode_is_escaped_and_json_stays_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    use(stream, monkeypatch)

    printing.print_line("ü")
    printing.print_json("ü")

    assert shown(stream) == '\\xfc\n"ü"\n'


def test_text_that_would_turn_or_break_a_line_is_escaped() -> None:
    assert printing.safe("a\u202eb\u2028c\\d\x9b") == "a\\u202eb\\u2028c\\\\d\\x9b"
    assert printing.safe("👨\u200d👩 ü") == "👨\u200d👩 ü"


def test_times_are_short_on_a_terminal(terminal: Terminal) -> None:
    assert len(printing.clock_time(1_000)) == len("1970-01-01 00:00:01")


def test_times_are_utc_in_a_pipe(pipe: io.TextIOWrapper) -> None:
    assert printing.clock_time(1_000) == "1970-01-01T00:00:01.000+00:00"
    assert printing.clock_time(None) == ""
