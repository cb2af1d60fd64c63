import subprocess
import sys

import pytest

from examples import __main__ as program


class FakeWorkers:
    """Workers that have died, as far as they tell so."""

    def __init__(self, *deaths: str) -> None:
        self._deaths = list(deaths)

    def deaths(self) -> list[str]:
        return self._deaths


def watch(code: str, *deaths: str) -> bool:
    with subprocess.Popen([sys.executable, "-c", code]) as example:
        try:
            return program._watch("tea", example, FakeWorkers(*deaths))  # type: ignore[arg-type]
        finally:
            example.kill()


def test_the_examples_are_found_but_for_the_one_with_a_server_of_its_own() -> None:
    assert {"approval", "saga", "subscription"} <= set(program.found())
    assert "dpkg" not in program.found()


def test_an_example_that_ends_with_0_is_good() -> None:
    assert watch("")


def test_an_example_that_ends_otherwise_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert not watch("raise SystemExit(3)")
    assert capsys.readouterr().err == "examples.tea: ended with code 3\n"


def test_an_example_without_its_worker_is_not_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert not watch("import time; time.sleep(60)", "worker 0 has ended, with code 2\nno such app")
    assert capsys.readouterr().err == "examples.tea: worker 0 has ended, with code 2\nno such app\n"


def test_an_example_that_does_not_end_is_given_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_PATIENCE_S", 0.0)
    assert not watch("import time; time.sleep(60)")
    assert capsys.readouterr().err == "examples.tea: not done in 0 s\n"


def test_an_example_that_does_not_exist_is_told_with_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main(["nonsense"])
    assert ended.value.code == 2
    assert "no example 'nonsense': there are approval, " in capsys.readouterr().err
