"""An application's machines and services, as a worker process meets them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from fsm import App, ConfigError, DefinitionError, Machine, Settings
from workers.executors import InlineExecutor

DOOR = """
stateDiagram-v2
    [*] --> closed
    closed --> open : push
    open --> closed : pull
"""


class Door(Machine):
    settings = Settings(endless=True)
    diagram = DOOR


class Bank:
    def __init__(self) -> None:
        self.is_open = True


class Till(Machine):
    settings = Settings(endless=True, queue="tills")
    diagram = DOOR

    def __init__(self, bank: Bank, *, currency: str = "EUR") -> None:
        self.bank = bank
        self.currency = currency


class Safe(Machine):
    settings = Settings(endless=True)
    diagram = DOOR

    def __init__(self, first: Any, /, second: Any = 2, *rest: Any, third: Any, **more: Any) -> None:
        self.taken = (first, second, rest, third, more)


def giving(services: Any, seen: list[str] | None = None) -> Callable[[], Any]:
    """A lifespan that yields this."""

    @contextmanager
    def services_of_the_shop() -> Iterator[Any]:
        (seen if seen is not None else []).append("opened")
        try:
            yield services
        finally:
            (seen if seen is not None else []).append("closed")

    return services_of_the_shop


def taken_by(app: App, name: str) -> Any:
    return app.behaviours[name].machine


def test_without_a_lifespan_machines_are_made_once_and_frozen_when_they_are_asked_for() -> None:
    app = App([Door])

    door = taken_by(app, "Door")

    assert taken_by(app, "Door") is door
    with pytest.raises(AttributeError, match=r"state belongs in t\.payload"):
        door.x = 1
    app.open()
    app.open()
    app.close()
    assert taken_by(app, "Door") is door


def test_instances_are_taken_as_they_are() -> None:
    till = Till(Bank())
    assert taken_by(App([till]), "Till") is till


def test_an_app_of_classes_alone_is_bare() -> None:
    assert App([Door]).is_bare
    assert not App([Door()]).is_bare
    assert not App([Door], lifespan=giving(None)).is_bare
    assert not App([Door], around=lambda _: contextmanager(lambda: iter([None]))()).is_bare


def test_machines_take_services_by_the_names_of_their_parameters() -> None:
    bank, seen = Bank(), list[str]()
    app = App([Till, Door], lifespan=giving({"bank": bank, "nobody wants": 1}, seen))

    with app:
        till = taken_by(app, "Till")
        assert (till.bank, till.currency) == (bank, "EUR")
        assert seen == ["opened"]
    assert seen == ["opened", "closed"]
    with pytest.raises(ConfigError, match="is not open"):
        _ = app.behaviours
    with app:
        assert taken_by(app, "Till") is not till


def test_a_machine_that_inherits_how_it_is_made_takes_the_same() -> None:
    # Seen to fail with Python 3.11.2 where the class itself was asked: it told of `Machine.__new__`.
    class Corner(Till):
        pass

    with App([Corner], lifespan=giving({"bank": Bank()})) as app:
        assert taken_by(app, "Corner").currency == "EUR"


def test_every_kind_of_parameter_takes_its_service() -> None:
    with App([Safe], lifespan=giving({"first": 1, "third": 3, "rest": 4, "more": 5})) as app:
        assert taken_by(app, "Safe").taken == (1, 2, (), 3, {})


@pytest.mark.parametrize("services", [None, {}])
def test_a_lifespan_may_give_nothing(services: Any) -> None:
    with App([Door], lifespan=giving(services)) as app:
        assert list(app.behaviours) == ["Door"]


def test_a_lifespan_may_take_the_app() -> None:
    given: list[Any] = []

    @contextmanager
    def services(app: App) -> Iterator[None]:
        given.append(app)
        yield

    with App([Door], lifespan=services) as app:
        assert given == [app]


def test_a_parameter_with_a_default_is_not_for_the_app() -> None:
    @contextmanager
    def services(currency: str = "EUR") -> Iterator[dict[str, Any]]:
        yield {"bank": None, "currency": currency}

    with App([Till], lifespan=services) as app:
        assert taken_by(app, "Till").currency == "EUR"


def test_a_lifespan_may_be_a_class() -> None:
    class Services:
        def __enter__(self) -> Mapping[str, Any]:
            return {"bank": self}

        def __exit__(self, *_: object) -> None: ...

    with App([Till], lifespan=Services) as app:
        assert isinstance(taken_by(app, "Till").bank, Services)


def test_names_definitions_and_queues_are_known_without_opening() -> None:
    app = App([Till, Door], lifespan=giving({}))

    assert [definition.name for definition in app.definitions] == ["Till", "Door"]
    assert app.machines == [Till, Door]
    assert app.queues("fsm") == ["fsm", "tills"]
    with pytest.raises(ConfigError, match="App: is not open, and its machines need what its lifespan gives"):
        _ = app.behaviours


def test_a_service_that_is_missing_is_named_with_what_there_is_and_all_is_closed() -> None:
    seen: list[str] = []
    app = App([Door, Till], lifespan=giving({"mail": 1, "db": 2}, seen))

    with pytest.raises(ConfigError) as caught:
        app.open()

    assert str(caught.value) == (
        f"app: machine {__name__}.Till needs 'bank', and the lifespan gave 'mail', 'db': add it there"
    )
    assert seen == ["opened", "closed"]
    with pytest.raises(ConfigError, match="is not open"):
        _ = app.behaviours


def test_all_services_that_are_missing_are_named() -> None:
    with pytest.raises(ConfigError, match="needs 'first' and 'third', and the lifespan gave nothing"):
        App([Safe], lifespan=giving(None)).open()


def test_a_service_that_cannot_come_is_told_when_the_app_is_made() -> None:
    with pytest.raises(ConfigError, match=r"Till needs 'bank', and there is no lifespan to give it"):
        App([Till])


def test_a_machine_that_cannot_be_made_says_why_in_one_line() -> None:
    class Broken(Machine):
        settings = Settings(endless=True)
        diagram = DOOR

        def __init__(self) -> None:
            raise ValueError("two\nlines")

    with pytest.raises(
        ConfigError, match=r"Broken cannot be made: its __init__ raised ValueError: two lines \("
    ) as caught:
        App([Broken]).open()
    assert isinstance(caught.value.__cause__, ValueError)


def test_two_machines_of_one_name_are_told_when_the_app_is_made() -> None:
    class Gate(Machine):
        settings = Settings(name="Door", endless=True)
        diagram = DOOR

    with pytest.raises(ConfigError, match=r"Door and .*Gate are both named 'Door': give one another name"):
        App([Door, Gate], lifespan=giving(None))


@pytest.mark.parametrize(
    ("machines", "text"),
    [
        (Door, r"takes a list of machines: write App\(\[Door\]\)"),
        ([Door, 7], "takes machines, classes or instances, and 7 is neither"),
        ([App], "is neither"),
    ],
)
def test_what_is_no_machine_is_refused(machines: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        App(machines)


def test_a_machine_without_a_diagram_is_refused() -> None:
    class Abstract(Machine):
        pass

    with pytest.raises(DefinitionError, match="has no diagram"):
        App([Abstract])


def bare() -> Iterator[None]:
    yield


async def bare_async() -> AsyncIterator[None]:
    yield


async def coroutine(_t: Any = None) -> None: ...


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (7, "7 is no function: give one that is decorated with @contextmanager"),
        (bare, "bare is a bare generator: decorate it with @contextmanager"),
        (bare_async, "bare_async is a bare generator: decorate it with @asynccontextmanager"),
        (coroutine, "coroutine is a coroutine: let it yield once, and decorate it with @asynccontextmanager"),
    ],
)
@pytest.mark.parametrize("name", ["lifespan", "around"])
def test_what_gives_no_context_is_refused_when_the_app_is_made(name: str, option: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        App([Door], **{name: option})
    assert caught.value.setting == f"App({name}=…)"


def test_functions_of_the_wrong_arguments_are_refused_when_the_app_is_made() -> None:
    with pytest.raises(ConfigError, match="must take no argument, or one, the app"):
        App([Door], lifespan=lambda a, b: (a, b))  # type: ignore[arg-type,misc]
    with pytest.raises(ConfigError, match="must take one argument, the transition"):
        App([Door], around=lambda: None)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize("given", [None, 7])
def test_a_lifespan_that_gives_no_context_manager_says_what_to_do(given: Any) -> None:
    with pytest.raises(ConfigError, match=rf"gave {given!r}, no context manager: decorate it"):
        App([Door], lifespan=lambda: given).open()


@pytest.mark.parametrize("services", [7, [("bank", 1)], {1: 2}, "bank"])
def test_a_lifespan_that_yields_something_else_is_closed_and_says_so(services: Any) -> None:
    seen: list[str] = []
    with pytest.raises(
        ConfigError, match=f"yields a mapping of name to service, or None, not {type(services).__name__}"
    ):
        App([Door], lifespan=giving(services, seen)).open()
    assert seen == ["opened", "closed"]


def test_a_lifespan_that_raises_is_told_in_one_line_with_its_place_and_cause() -> None:
    @contextmanager
    def services() -> Iterator[None]:
        raise ConnectionError("no route\nto the bank")
        yield

    with pytest.raises(ConfigError) as caught:
        App([Door], lifespan=services).open()

    text = str(caught.value)
    assert "services: raised ConnectionError: no route to the bank (" in text
    assert f"{__file__}, line " in text
    assert "\n" not in text
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_lifespan_that_raises_on_closing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def services() -> Iterator[None]:
        yield
        raise ConnectionError("no route")

    with caplog.at_level(logging.ERROR, "fsm.app"), App([Door], lifespan=services):
        pass

    assert "raised on closing" in caplog.text
    assert "ConnectionError: no route" in caplog.text


def test_an_open_app_is_not_opened_again() -> None:
    with App([Door], lifespan=giving(None)) as app, pytest.raises(ConfigError, match="is open already"):
        app.open()
    app.close()


# Async lifespans.


class Pool:
    """Belongs to the loop on which it was made, as pools of connections do."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.tasks: list[Any] = [asyncio.current_task()]

    async def close(self) -> None:
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        self.tasks.append(asyncio.current_task())


@asynccontextmanager
async def pooled() -> AsyncIterator[dict[str, Any]]:
    pool = Pool()
    # A scope of asyncio must be left by the task that entered it.
    async with asyncio.timeout(60):
        yield {"bank": pool}
    await pool.close()


@pytest.fixture
def executor() -> Iterator[InlineExecutor]:
    made = InlineExecutor(timed=False)
    yield made
    made.close()


async def current_loop() -> Any:
    return asyncio.get_running_loop()


def test_an_async_lifespan_lives_on_the_loop_of_the_handlers(executor: InlineExecutor) -> None:
    app = App([Till], lifespan=pooled)

    app.open(executor.drive)
    pool = taken_by(app, "Till").bank
    assert executor.run(current_loop(), is_async=True) is pool.loop
    app.close()

    assert pool.tasks[0] is pool.tasks[1]


def test_an_async_lifespan_has_a_loop_of_its_own_elsewhere() -> None:
    with App([Till], lifespan=pooled) as app:
        pool = taken_by(app, "Till").bank
        assert not pool.loop.is_closed()
    assert len(pool.tasks) == 2
    assert pool.loop.is_closed()


def test_an_async_lifespan_is_not_opened_inside_of_a_loop_that_runs() -> None:
    app = App([Till], lifespan=pooled)

    async def opens() -> None:
        app.open()

    with pytest.raises(ConfigError, match="is async, and a loop runs here already"):
        asyncio.run(opens())


@pytest.mark.parametrize("is_driven", [True, False])
def test_an_async_lifespan_that_raises_is_told_likewise(executor: InlineExecutor, is_driven: bool) -> None:
    @asynccontextmanager
    async def services() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        raise ConnectionError("no route")
        yield

    app = App([Door], lifespan=services)
    for _ in range(2):  # and may be opened again
        with pytest.raises(ConfigError, match="services: raised ConnectionError: no route") as caught:
            app.open(executor.drive if is_driven else None)
        assert isinstance(caught.value.__cause__, ConnectionError)


def test_an_async_lifespan_that_raises_on_closing_is_logged(
    executor: InlineExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def services() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(0)
        raise ConnectionError("no route")

    app = App([Door], lifespan=services)
    app.open(executor.drive)
    app.close()

    assert "raised on closing" in caplog.text


def test_an_async_lifespan_whose_task_was_cancelled_meanwhile_does_not_hold_up_the_end(
    executor: InlineExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[Any] = []

    @asynccontextmanager
    async def services() -> AsyncIterator[None]:
        tasks.append(asyncio.current_task())
        yield

    app = App([Door], lifespan=services)
    app.open(executor.drive)
    tasks[0].cancel()
    app.close()

    assert "raised on closing" in caplog.text


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_opening_that_is_interrupted_is_taken_back(executor: InlineExecutor, interrupt: type[BaseException]) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def services() -> AsyncIterator[None]:
        try:
            seen.append("opened")
            await asyncio.sleep(60)
            yield
        finally:
            seen.append("closed")

    async def interrupts(opening: Any) -> Any:
        task = asyncio.ensure_future(opening)
        await asyncio.sleep(0.01)
        task.cancel()
        raise interrupt

    def drive(work: Any) -> Any:
        return executor.drive(work if seen == ["closed"] or work.__name__ == "cancel" else interrupts(work))

    with pytest.raises(interrupt):
        App([Door], lifespan=services).open(drive)

    assert seen == ["opened", "closed"]
