"""The plans need no blocking client: twenty lines carry all of them over asyncio."""

import asyncio
from typing import Any

import fakeredis

from fsm import Machine, Settings, verbs
from fsm.store.keys import Keys
from fsm.store.requests import Request, script
from fsm.verbs import Plan

KEYS = Keys("default")


class Lamp(Machine):
    settings = Settings(endless=True)
    diagram = """
    stateDiagram-v2
        [*] --> dark
        dark --> light : push
        light --> dark : push
    """


async def carry(client: fakeredis.FakeAsyncRedis, request: Request[Any]) -> Any:
    if request.script:
        text, _ = script(request.script)
        reply = await client.eval(text, len(request.keys), *request.keys, *request.arguments)
    else:
        replies = [await client.execute_command(*command) for command in request.commands]
        reply = replies if len(replies) > 1 else replies[0]
    return request.read(reply)


async def do(client: fakeredis.FakeAsyncRedis, plan: Plan[Any]) -> Any:
    try:
        request = plan.send(None)
        while True:
            request = plan.send(await carry(client, request))
    except StopIteration as end:
        return end.value


def test_all_plans_can_be_carried_over_asyncio() -> None:
    async def story() -> None:
        async with fakeredis.FakeAsyncRedis() as client:
            await carry(client, verbs.announce(KEYS, [Lamp.definition], 0))
            started = await do(client, verbs.start_many(KEYS, Lamp.definition, [("a", None), ("b", None)]))
            sent = await do(client, verbs.send_many(KEYS, [verbs.sending(None, "a", "push")]))
            assert all(verdict.ok for verdict in started + sent)
            assert (await do(client, verbs.state(KEYS, "a"))).status == "starting"
            assert await do(client, verbs.allowed(KEYS, "a", None)) == ("push",)
            assert await do(client, verbs.counts(KEYS)) == {"Lamp": {"dark": 2, "light": 0}}
            assert await carry(client, verbs.exists(KEYS, "a"))
            lamp = await do(client, verbs.blueprint(KEYS, "Lamp"))
            assert (await do(client, verbs.start_many(KEYS, lamp, [("c", None)], state="light")))[0].ok
            assert (await do(client, verbs.wait_for(KEYS, "c", "light", 1))).history == ("light",)
            await do(client, verbs.purge(KEYS, "c", "", 1))
            keyed = verbs.sending(None, "b", "push", key="k", if_version=0)
            first, again = [(await do(client, verbs.send_many(KEYS, [keyed])))[0] for _ in range(2)]
            assert first == again
            assert "no worker listens" in await do(client, verbs.why(KEYS, "b", first.job_id))
            page = await do(client, verbs.query(KEYS, verbs.read_filters("query", {})))
            assert {snapshot.name for snapshot in page} == {"a", "b"}
            assert await do(client, verbs.log_page(KEYS, None, "0-0")) == ([], None)
            assert verbs.standing(await carry(client, verbs.view(KEYS, sent[0].job_id))) == "waiting"
            await do(client, verbs.purge(KEYS, "a", "", 1))
            assert not await carry(client, verbs.exists(KEYS, "a"))

    asyncio.run(story())
