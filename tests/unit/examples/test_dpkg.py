import gzip
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsm
from examples.dpkg import __main__ as program
from examples.dpkg.display import Display
from examples.dpkg.log import LogError, StatusLine, parse, read
from examples.dpkg.machine import STATUSES, UNKNOWN, Package
from examples.dpkg.replay import Report, Standing

SAMPLE = Path(fsm.__file__).parents[1] / "examples" / "dpkg" / "dpkg.log"
GRAPH = Package.graph


def refused(statuses: Iterable[str]) -> list[tuple[str, str]]:
    """Walk a package's statuses through the graph and give the steps that it does not allow."""
    state, found = UNKNOWN, []
    for status in statuses:
        if GRAPH.responds(state, status):
            state = status
        else:
            found.append((state, status))
    return found


def steps(lines: Iterable[StatusLine]) -> Iterator[list[str]]:
    by_package: dict[str, list[str]] = {}
    for line in lines:
        by_package.setdefault(line.package, []).append(line.status)
    yield from by_package.values()


# The machine


def test_the_states_are_those_of_dpkg_and_one_before_them() -> None:
    assert set(GRAPH.states) == {UNKNOWN, *STATUSES}
    assert GRAPH.start == UNKNOWN
    assert not GRAPH.ends


def test_every_event_leads_to_the_state_of_its_name_and_has_one_target() -> None:
    assert [edge for edge in GRAPH.edges if edge.event != edge.target] == []
    assert all(len(GRAPH.edges_for(state, event)) <= 1 for state in GRAPH.states for event in GRAPH.events)


@pytest.mark.parametrize("status", STATUSES)
def test_a_log_may_begin_with_any_status_and_repeat_it(status: str) -> None:
    assert refused([status, status, status]) == []


# What dpkg writes, by its source; each story is told in the docstring of the machine.
STORIES = {
    "install": "not-installed half-installed unpacked unpacked half-configured installed",
    "upgrade": "installed half-configured unpacked half-installed unpacked unpacked half-configured installed",
    "upgrade of a package with pending triggers": "triggers-pending half-configured unpacked half-installed unpacked",
    "upgrade of a package that awaits triggers": "triggers-awaited half-configured unpacked half-installed unpacked",
    "upgrade whose old prerm fails": "installed half-configured installed",
    "upgrade whose preinst fails": "installed half-configured unpacked half-installed unpacked installed",
    "the same where triggers came in between": "half-configured unpacked half-installed unpacked triggers-pending",
    "the same where triggers are awaited": "half-configured unpacked half-installed unpacked triggers-awaited",
    "first installation whose preinst fails": "half-installed not-installed",
    "installation over config-files whose preinst fails": "config-files half-installed config-files",
    "upgrade that breaks in the middle, and again": "half-installed half-installed unpacked half-configured installed",
    "configuration that fails, and later works": "unpacked half-configured half-configured installed",
    "removal": "installed half-configured half-installed config-files",
    "removal whose prerm fails": "installed half-configured installed",
    "removal of what was only unpacked": "unpacked half-installed config-files",
    "removal of a package without config files": "installed half-configured half-installed config-files not-installed",
    "purge of config files": "config-files config-files not-installed",
    "installation after a removal": "config-files half-installed unpacked half-configured installed",
    "installation after a purge": "not-installed half-installed unpacked half-configured installed",
    "removal in favour of another": "installed half-configured half-installed half-installed config-files",
    "the same, when the other cannot be installed": "installed half-configured half-installed installed",
    "the same, with triggers awaited": "triggers-awaited half-configured half-installed triggers-awaited",
    "the same, with triggers pending": "triggers-pending half-configured half-installed triggers-pending",
    "deconfiguration in favour of another": "installed half-configured half-configured installed",
    "disappearance": "installed not-installed",
    "disappearance of a package that awaits triggers": "triggers-awaited not-installed",
    "disappearance of a package with pending triggers": "triggers-pending not-installed",
    "disappearance of a package that is unpacked": "unpacked not-installed",
    "disappearance of a package that is half-configured": "half-configured not-installed",
    "triggers": "installed triggers-pending half-configured installed",
    "triggers that fail": "triggers-pending half-configured half-configured triggers-pending",
    "triggers that another has to run": "half-configured triggers-awaited installed",
    "triggers awaited and pending": "installed triggers-awaited triggers-pending half-configured triggers-awaited",
    "awaited triggers while some are pending": "triggers-pending triggers-awaited half-configured installed",
    "a new database of triggers": "triggers-pending installed triggers-awaited installed",
    "another architecture comes": "not-installed unpacked half-configured installed",
    "another architecture comes back": "installed half-configured unpacked half-installed unpacked installed",
    "removal by dpkg before 1.19.1": (
        "installed installed half-configured half-installed config-files config-files config-files config-files"
        " config-files not-installed not-installed"
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_what_dpkg_does_is_allowed(story: str) -> None:
    assert refused(STORIES[story].split()) == []


def test_the_stories_take_every_edge() -> None:
    taken = {(UNKNOWN, status) for status in STATUSES}
    for story in STORIES.values():
        statuses = story.split()
        taken |= set(pairwise(statuses))
    repeats = {(status, status) for status in STATUSES}
    assert {(edge.source, edge.target) for edge in GRAPH.edges} - repeats == taken - repeats


@pytest.mark.parametrize(
    "step",
    [
        "not-installed installed",
        "not-installed config-files",
        "not-installed half-configured",
        "not-installed triggers-pending",
        "config-files installed",
        "config-files unpacked",
        "config-files half-configured",
        "half-installed half-configured",
        "unpacked config-files",
        "half-configured config-files",
        "triggers-awaited unpacked",
        "triggers-pending half-installed",
        "installed unpacked",
        "installed half-installed",
        "installed config-files",
        "installed unknown",
    ],
)
def test_what_dpkg_never_does_is_refused(step: str) -> None:
    source, target = step.split()
    assert not GRAPH.responds(source, target)


def test_each_package_of_the_sample_goes_its_way_through_the_graph() -> None:
    ways = list(steps(read(SAMPLE)))
    assert (len(ways), sum(map(len, ways))) == (361, 1848)
    assert [wrong for way in ways for wrong in refused(way)] == []


# The log


def test_a_status_line_is_read_with_its_architecture_and_version() -> None:
    line = b"2025-06-24 14:36:25 status half-configured libsystemd0:amd64 252.36-1~deb12u1\n"
    expected = StatusLine("2025-06-24 14:36:25", "half-configured", "libsystemd0:amd64", "252.36-1~deb12u1")
    assert parse(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"2011-01-01 00:00:00 status not-installed foo <none>",
        b"2011-01-01 00:00:00 status not-installed foo <none>\r\n",
        b"\0\0\0\0" + b"2011-01-01 00:00:00 status not-installed foo <none>\n",
    ],
    ids=["old, without architecture and newline", "from a foreign system", "after a crash of the computer"],
)
def test_a_whole_status_line_is_read_whatever_stands_around_it(line: bytes) -> None:
    assert parse(line) == StatusLine("2011-01-01 00:00:00", "not-installed", "foo", "<none>")


def test_the_same_package_of_two_architectures_is_two_packages() -> None:
    lines = [parse(b"2025-06-24 14:36:25 status installed libc6:%s 2.36\n" % arch) for arch in (b"amd64", b"i386")]
    assert [line and line.package for line in lines] == ["libc6:amd64", "libc6:i386"]


def test_a_version_that_is_no_utf_8_does_not_hide_its_line() -> None:
    line = parse(b"2025-06-24 14:36:25 status installed foo 1\xff\n")
    assert line is not None
    assert (line.package, line.version) == ("foo", "1\\xff")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"\xff\xfe\x00 nonsense \x80\n",
        b"2025-06-24 14:36:25 startup archives unpack\n",
        b"2025-06-24 14:36:25 startup packages configure\n",
        b"2025-06-24 14:36:25 install base-files:amd64 <none> 12.4\n",
        b"2025-06-24 14:36:25 upgrade libc6:amd64 2.36-9 2.36-10\n",
        b"2025-06-24 14:36:25 configure libc6:amd64 2.36-10 <none>\n",
        b"2025-06-24 14:36:25 trigproc libc-bin:amd64 2.36-10 <none>\n",
        b"2025-06-24 14:36:25 remove status 1 2\n",
        b"2025-06-24 14:36:25 purge foo 1 2\n",
        b"2025-06-24 14:36:25 disappear foo 1 2\n",
        b"2025-06-24 14:36:25 conffile /etc/status install\n",
        b"2025-06-24 14:36:25 status installed\n",
        b"2025-06-24 14:36:25 status installed libc6:am",
        b"2025-06-24 14:36:25 status inst libc6:amd64 2.36\n",
        b"2025-06-24 14:36:25 status unknown libc6:amd64 2.36\n",
        b"2025-06-24 14:36:25 status installed caf\xc3\xa9 1\n",
        b"2025-06-24 14:36:25 status installed libc6:amd64 2.36 more\n",
        b"25-06-24 14:36:25 status installed libc6:amd64 2.36\n",
        b"2025-06-24 14:36:25 status installed libc2025-06-24 14:36:26 status installed libc6 1\n",
    ],
)
def test_other_and_broken_lines_are_passed_over(line: bytes) -> None:
    assert parse(line) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_log(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dpkg.log")
        path.write_bytes(data + b"\n2025-06-24 14:36:25 status installed foo 1")
        # What begins like gzip data is damaged gzip data.
        if not data.startswith(b"\x1f\x8b"):
            assert list(read(path))[-1].package == "foo"


def test_a_packed_log_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    packed = tmp_path / "dpkg.log.2"
    packed.write_bytes(gzip.compress(SAMPLE.read_bytes()))
    assert list(read(packed)) == list(read(SAMPLE))


def test_a_log_is_read_line_by_line(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    pipe.write_bytes(b"2025-06-24 14:36:25 status installed foo 1\n" * 100_000)
    lines = read(pipe)
    assert next(lines).package == "foo"
    pipe.write_bytes(b"")  # nearly all of it has not been read yet, and is gone
    assert sum(1 for _ in lines) < 50_000


def test_a_line_without_end_does_not_fill_the_memory_and_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = b"2025-06-24 14:36:25 status installed %s 1\n"
    path.write_bytes(good % b"foo" + b"x" * 300_000 + good % b"lost" + good % b"bar")
    assert [line.package for line in read(path)] == ["foo", "bar"]


def test_a_log_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"nothing\.log cannot be read \(No such file or directory\): name a dpkg\.log"):
        list(read(tmp_path / "nothing.log"))


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="Is a directory"):
        list(read(tmp_path))


@pytest.mark.parametrize("damage", [lambda raw: raw[:400], lambda raw: raw[:400] + b"\0" * 40 + raw[440:]])
def test_damaged_gzip_data_are_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(damage(gzip.compress(SAMPLE.read_bytes())))
    with pytest.raises(LogError, match=r"log\.gz (is damaged|cannot be read)"):
        list(read(path))


# What a person sees


def test_a_pipe_gets_plain_lines_with_the_counts_per_state() -> None:
    stream = StringIO()
    states = {"installed": 2, UNKNOWN: 1}
    with Display(stream) as display:
        display.show(Standing(9, 7, Counter(states), is_settled=False), is_last=True)
        display.tell("[bold]no markup[/bold]")
    assert stream.getvalue() == "7 of 9 status lines applied: 1 unknown, 2 installed\n[bold]no markup[/bold]\n"


def test_a_terminal_gets_a_bar_and_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    stream = StringIO()
    with Display(stream) as display:
        display.show(Standing(9, 7, Counter({"installed": 2}), is_settled=False))
    assert "\x1b[" in stream.getvalue()
    assert "7/9" in stream.getvalue()
    assert "installed" in stream.getvalue()


def test_a_report_is_good_only_without_any_fault_and_tells_the_first_ones() -> None:
    assert Report(3, 9).is_good
    assert not any(Report(3, 9, **{fault: 1}).is_good for fault in ("failed", "refused", "mismatches"))
    report = Report()
    for number in range(100):
        report.tell(str(number))
    assert report.told == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("arguments", [["--workers", "0"], ["--workers", "two"], ["--nonsense"]])
def test_wrong_use_is_told_with_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m examples.dpkg" in capsys.readouterr().err
