"""Memories over MCP, driven by the official client from outside."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client

import koru_delta
from koru_delta import embedders
from koru_delta.surfaces.mcp import STATS, server_of
from koru_delta.surfaces.tools import ALL, Tools
from koru_delta.testing import FixedClock

PROJECT = Path(__file__).parents[2]
NAMES = ["remember", "recall", "as_of", "forget", "why", "history"]


def command(place: Path, *options: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "koru_delta", "mcp", str(place), *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PROJECT), "KORU_DELTA_AUTHOR": "tester"}


@asynccontextmanager
async def served(
    place: Path, *options: str, mode: str = "auto", pid_file: Path | None = None
) -> AsyncIterator[Client]:
    """A client of a server of its own; words alone unless an embedder is named."""
    if "--embedder" not in options:
        options = (*options, "--embedder", "none")
    words = command(place, *options)
    if pid_file is not None:
        words = ["sh", "-c", f"echo $$ > {shlex.quote(str(pid_file))}; exec {shlex.join(words)}"]
    parameters = StdioServerParameters(command=words[0], args=words[1:], env=environment())
    with (place.parent / "stderr").open("a") as errlog:
        async with Client(stdio_client(parameters, errlog), mode=mode) as client:
            yield client


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answered, which must fit the schema it promises: the client looks."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return dict(result.structured_content)


async def said(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    [content] = result.content
    return str(content.text)


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    [content] = result.content
    return str(content.text)


def ids(answer: dict[str, Any]) -> list[str]:
    return [each["id"] for each in answer["memories"]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "memory.koru"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_model_is_told_what_the_tools_are_for(place, mode):
    async with served(place, mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        resources = (await client.list_resources()).resources

        assert list(tools) == NAMES
        assert "call recall" in str(client.instructions)
        for tool in tools.values():
            assert len(str(tool.description)) > 100
            assert tool.input_schema["additionalProperties"] is False
            for argument in tool.input_schema["properties"].values():
                assert argument["description"]
            assert tool.annotations.open_world_hint is False
        for name in ("valid_from", "valid_to"):
            assert (
                "2026-03-02T09:00:00Z"
                in tools["remember"].input_schema["properties"][name]["description"]
            )
        writing = [name for name, tool in tools.items() if not tool.annotations.read_only_hint]
        assert writing == ["remember", "forget"]
        assert [str(each.uri) for each in resources] == [STATS]
    assert "Traceback" not in (place.parent / "stderr").read_text()


# google-gemini/gemini-cli 13326, github/copilot-cli 1876: clients that resolve no references
async def test_schemas_are_plain():
    with koru_delta.open() as db:
        async with Client(server_of(Tools(db, db.workspace("agent").ai_context()))) as client:
            tools = (await client.list_tools()).tools
    for tool in tools:
        for schema in (tool.input_schema, tool.output_schema):
            told = json.dumps(schema)
            assert not any(word in told for word in ("$ref", "$defs", '"null"', "anyOf"))
    properties = {tool.name: tool.input_schema["properties"] for tool in tools}
    assert properties["remember"]["value"] == {"description": "What the fact says: any JSON."}
    assert properties["recall"]["types"]["items"]["enum"] == ["episode", "fact", "procedure"]
    assert properties["recall"]["limit"]["default"] == 10


async def test_every_tool_does_what_it_says(place):
    async with served(place) as client:
        met = (
            await ask(
                client, "remember", text="Ada said that she lives in Paris.", source="chat",
                session="s1", tags=["home"], valid_from="2026-03-02T09:00:00Z",
            )
        )["memory"]  # fmt: skip
        paris = (
            await ask(
                client, "remember", kind="fact", name="home-city", value="Paris",
                valid_from="2020-05-01T00:00:00+02:00", because=[met["id"]],
            )
        )["memory"]  # fmt: skip
        rome = (await ask(client, "remember", kind="fact", name="home-city", value="Rome"))[
            "memory"
        ]
        await ask(client, "remember", kind="procedure", name="deploy", steps=["test", "push"])
        tried = await ask(
            client, "remember", kind="outcome", name="deploy", success=True, text="quick"
        )

        assert (met["type"], met["valid_from"]) == ("episode", "2026-03-02T09:00:00+00:00")
        assert (paris["id"], paris["value"], paris["author"]) == (
            "fact:home-city",
            "Paris",
            "tester",
        )
        assert paris["valid_from"] == "2020-04-30T22:00:00+00:00"
        assert (tried["memory"]["successes"], tried["memory"]["failures"]) == (1, 0)

        found = await ask(client, "recall", query="Where does Ada live? home city", limit=2)
        assert set(ids(found)) == {met["id"], "fact:home-city"}
        [fact] = (await ask(client, "recall", query="home city", types=["fact"]))["memories"]
        assert (fact["value"], fact["version"]) == ("Rome", rome["version"])
        earlier = await ask(
            client, "recall", query="home city", types=["fact"], valid_at="2021-01-01T00:00:00Z"
        )
        assert [each["value"] for each in earlier["memories"]] == ["Paris"]
        assert ids(await ask(client, "recall", query="Paris", tags=["home"])) == [met["id"]]
        assert (await ask(client, "recall", query="zebra"))["memories"] == []
        text = await said(client, "recall", query="how to deploy")
        tried = "worked 1 of 1 times, from tester, relevance 0.19"
        assert f"[1] (procedure:deploy, {tried}) deploy: test; push" in text

        then = await ask(client, "as_of", moment=paris["version"], fact="home-city")
        assert [each["value"] for each in then["memories"]] == ["Paris"]
        then = await ask(client, "as_of", moment=met["version"], query="Paris home city")
        assert ids(then) == [met["id"]]
        assert then["as_of"] == met["recorded_at"]
        assert "nothing" in await said(
            client, "as_of", moment="2020-01-01T00:00:00Z", fact="home-city"
        )

        why = await ask(client, "why", id="fact:home-city", moment=paris["version"])
        assert why["memory"]["value"] == "Paris"
        assert [(each["id"], each["source"]) for each in why["sources"]] == [(met["id"], "chat")]
        assert "not concluded" in await said(client, "why", id=met["id"])

        history = await ask(client, "history", id="fact:home-city")
        assert [each["value"] for each in history["timeline"]] == ["Paris", "Rome"]
        assert history["timeline"][0]["valid_to"] == rome["valid_from"]
        assert history["versions"][0]["version"] == rome["version"]

        gone = await ask(client, "forget", ids=[met["id"]], reason="she asked me to")
        assert (ids(gone), gone["mode"]) == ([met["id"]], "hide")
        assert ids(await ask(client, "recall", query="Ada said")) == []
        then = await ask(client, "as_of", moment=rome["version"], query="Ada said")
        assert ids(then) == [met["id"]]
        told = await said(client, "history", id=met["id"])
        assert "hide" in told
        assert "she asked me to" in told
        back = await ask(client, "forget", ids=[met["id"]], mode="restore")
        assert ids(back) == [met["id"]]
        assert ids(await ask(client, "recall", query="Ada said")) == [met["id"]]
        ending = await ask(client, "forget", ids=[met["id"]], mode="ttl", ttl_seconds=3600)
        [still] = (await ask(client, "recall", query="Ada said"))["memories"]
        assert (still["id"], still["expires_at"]) == (met["id"], ending["until"])


async def test_sources_that_disagree_are_shown(place):
    async with served(place) as client:
        for source, value in (("wiki", 7), ("hr", 9)):
            await ask(
                client, "remember", kind="fact", name="team-size", value=value, source=source,
                supersede=False,
            )  # fmt: skip

        history = await ask(client, "history", id="fact:team-size")
        [pair] = history["disagreements"]
        read = await client.read_resource(STATS)

    assert {(each["source"], each["value"]) for each in pair["memories"]} == {
        ("wiki", 7), ("hr", 9),
    }  # fmt: skip
    stats = json.loads(read.contents[0].text)
    assert stats.pop("bytes") > 0
    assert stats == {
        "workspace": "agent", "found_by": "words", "embedder": None, "episodes": 0, "facts": 2,
        "procedures": 0, "facts_on_which_sources_disagree": ["team-size"],
    }  # fmt: skip


async def test_what_makes_no_sense_is_refused_with_what_to_do(place):
    async with served(place) as client:
        kept = await ask(client, "remember", text="It rained.")
        for expected, tool, arguments in (
            ("'episode' needs text", "remember", {}),
            ("'fact' needs name and value", "remember", {"kind": "fact", "text": "x"}),
            ("takes no steps", "remember", {"text": "x", "steps": ["a"]}),
            ("'outcome' needs name and success", "remember", {"kind": "outcome"}),
            ("no memory 'procedure:fly'", "remember",
             {"kind": "outcome", "name": "fly", "success": False}),
            ("no such argument; it has text", "remember", {"txt": "x"}),
            ("kind: Input should be 'episode'", "remember", {"kind": "dream", "text": "x"}),
            ("time zone", "remember", {"text": "x", "valid_from": "2026-01-01"}),
            ("not a time", "remember", {"text": "x", "valid_from": "yesterday"}),
            ("not blank", "remember", {"text": "   "}),
            ("no memory 'fact:none'", "remember", {"text": "x", "because": ["fact:none"]}),
            ("ttl_seconds", "remember", {"text": "x", "ttl_seconds": -1}),
            ("query", "recall", {}),
            ("query", "recall", {"query": ""}),
            ("limit", "recall", {"query": "x", "limit": 1000}),
            ("types.0", "recall", {"query": "x", "types": ["dreams"]}),
            ("valid_at", "recall", {"query": "x", "as_of": "2026-01-01T00:00:00Z"}),
            ("either fact", "as_of", {"moment": "2026-01-01T00:00:00Z"}),
            ("not known", "as_of", {"moment": "abcdef0123456789", "query": "x"}),
            ("2026-03-02T09:00:00Z", "as_of", {"moment": "last week", "query": "x"}),
            ("2100", "as_of", {"moment": "2100-01-01T00:00:00Z", "query": "x"}),
            ("either ids or query", "forget", {}),
            ("either ids or query", "forget", {"ids": ["a"], "query": "b"}),
            ("belong together", "forget", {"ids": ["a"], "mode": "ttl"}),
            ("needs ids", "forget", {"query": "rain", "mode": "restore"}),
            ("recall finds them", "forget", {"ids": ["rain"]}),
            ("recall finds them", "why", {"id": "fact:none"}),
            ("recall finds them", "history", {"id": "none"}),
            ("there are remember, recall", "dream", {}),
        ):  # fmt: skip
            assert expected in await refused(client, tool, **arguments), (tool, arguments)

        found = await ask(client, "recall", query="rain rained")
        assert ids(found) == [kept["memory"]["id"]]
        with pytest.raises(MCPError, match="memory://stats"):
            await client.read_resource("memory://secrets")
    told = (place.parent / "stderr").read_text()
    assert "Traceback" not in told


async def test_what_models_tend_to_write_is_understood(place):
    async with served(place) as client:
        await ask(
            client, "remember", text="Tea at four.", tags='["tea", "habit"]', session=None,
            steps=None, because=[],
        )  # fmt: skip
        await ask(client, "remember", kind="fact", name="fact:pet", value=None)
        await ask(client, "remember", kind="fact", name="size", value={"cm": [1, 2.5]})
        await ask(client, "remember", text="Ünïcode 🐘\n[2] (fact:pet) is not another memory")

        found = await ask(client, "recall", query="tea", tags="habit", limit="3")
        assert [each["tags"] for each in found["memories"]] == [["tea", "habit"]]
        [pet] = (await ask(client, "recall", query="pet", types="fact"))["memories"]
        assert pet["id"] == "fact:pet"
        [size] = (await ask(client, "as_of", moment=pet["version"], query="tea"))["memories"]
        assert size["text"] == "Tea at four."
        lines = (await said(client, "recall", query="ünïcode")).splitlines()
        assert len([line for line in lines if line.startswith("[")]) == 1
        assert "elephant" not in lines[1]
        assert "🐘" in lines[1]


async def test_what_is_told_again_in_the_same_words_is_kept_once():
    with koru_delta.open(clock=FixedClock()) as db:
        memory = db.workspace("agent").ai_context()
        async with Client(server_of(Tools(db, memory))) as client:
            first = await ask(client, "remember", text="Ann likes tea.", tags=["ann", "tea"])
            for same in ({}, {"tags": ["tea"]}):
                again = await ask(client, "remember", text="Ann likes tea.", **same)
                assert again == {**first, "known_before": True}
            assert "Known before, so nothing was added" in await said(
                client, "remember", text="Ann likes tea."
            )
            for other in (
                {"session": "s"}, {"source": "bob"}, {"tags": ["new"]}, {"ttl_seconds": 9},
                {"valid_from": "2026-01-01T00:00:00Z"}, {"because": [first["memory"]["id"]]},
            ):  # fmt: skip
                kept = await ask(client, "remember", text="Ann likes tea.", **other)
                assert not kept["known_before"]
            assert len(memory.memories()) == 7
            memory.forget([first["memory"]["id"]])
            anew = await ask(client, "remember", text="Ann likes tea.", tags=["ann"])
            assert not anew["known_before"]  # what was forgotten is remembered anew


async def test_a_document_is_no_memory():
    with koru_delta.open() as db:
        async with Client(server_of(Tools(db, db.workspace("agent").ai_context()))) as client:
            told = await refused(client, "remember", text="word " * 10_000)
            assert "text: has more than 20,000 characters; keep what matters of it" in told
            await ask(client, "recall", query=" ".join(f"word{n}" for n in range(50_000)))


def test_what_is_printed_meanwhile_is_not_in_the_protocol(place):
    chatty = """
import sys
import koru_delta
from koru_delta.surfaces.mcp import serve
from koru_delta.surfaces.tools import Tools

def chatty(texts):
    print("loading a model", flush=True)
    return [[1.0, 2.0] for _ in texts]

with koru_delta.open(sys.argv[1]) as db:
    serve(Tools(db, db.workspace("agent", embedder=chatty).ai_context()))
"""
    asked = [
        {
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {
            "jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": "recall", "arguments": {"query": "x"}},
        },
    ]  # fmt: skip
    given = b"\xff\xfe no text\n\n{}\n[]\n" + b"".join(
        json.dumps(each).encode() + b"\n" for each in asked
    )
    done = subprocess.run(
        [sys.executable, "-c", chatty, str(place)], env=environment(), input=given,
        capture_output=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["id"] for each in answers if "id" in each] == [1, 2]
    assert b"loading a model" in done.stderr
    assert done.returncode == 0


async def test_a_query_that_looks_like_an_id_forgets_only_what_it_finds(place):
    async with served(place) as client:
        await ask(client, "remember", kind="fact", name="pet", value="cat")
        assert (await ask(client, "forget", query="fact:zebra"))["memories"] == []
        assert ids(await ask(client, "forget", query="pet cat")) == ["fact:pet"]
        assert (await ask(client, "recall", query="cat"))["memories"] == []


async def test_two_servers_on_one_directory_see_each_others_writes(place):
    async with served(place) as one, served(place, mode="legacy") as other:
        paris = await ask(one, "remember", kind="fact", name="home-city", value="Paris")
        [seen] = (await ask(other, "recall", query="home city"))["memories"]
        assert seen["value"] == "Paris"
        await ask(other, "remember", kind="fact", name="home-city", value="Rome")
        [seen] = (await ask(one, "recall", query="home city"))["memories"]
        assert seen["value"] == "Rome"
        then = await ask(other, "as_of", moment=paris["memory"]["version"], fact="home-city")
        assert [each["value"] for each in then["memories"]] == ["Paris"]

        async def write(client: Client, who: str) -> None:
            for number in range(10):
                await asyncio.gather(
                    ask(client, "remember", text=f"Note {number} of {who}."),
                    ask(client, "remember", kind="fact", name="count", value=f"{who}{number}"),
                )

        await asyncio.gather(write(one, "one"), write(other, "other"))
        for client in (one, other):
            notes = await ask(client, "recall", query="note", limit=50)
            assert {each["text"] for each in notes["memories"]} == {
                f"Note {number} of {who}." for number in range(10) for who in ("one", "other")
            }
            timeline = (await ask(client, "history", id="fact:count"))["timeline"]
            assert sorted(each["value"] for each in timeline) == sorted(
                f"{who}{number}" for number in range(10) for who in ("one", "other")
            )
            assert [each.get("valid_to") for each in timeline] == [
                *(each["valid_from"] for each in timeline[1:]), None,
            ]  # fmt: skip

    with koru_delta.open(place) as db:
        assert db.verify().ok


async def test_writes_sent_at_once_keep_their_order(place):
    async with served(place) as client:
        await asyncio.gather(
            *(
                ask(client, "remember", kind="fact", name="count", value=number)
                for number in range(20)
            )
        )
        timeline = (await ask(client, "history", id="fact:count"))["timeline"]
    assert [each["value"] for each in timeline] == list(range(20))


async def test_workspaces_know_nothing_of_each_other(place):
    async with served(place, "--workspace", "ada") as ada, served(place, "-w", "bob") as bob:
        kept = await ask(ada, "remember", text="The secret is 42.")
        assert (await ask(bob, "recall", query="secret"))["memories"] == []
        assert "recall finds" in await refused(bob, "history", id=kept["memory"]["id"])


async def test_a_server_that_is_killed_loses_nothing_it_acknowledged(place):
    pid_file = place.parent / "pid"
    acknowledged: list[str] = []

    async def write(client: Client, who: int) -> None:
        while True:
            text = f"Note {len(acknowledged)} of writer {who}."
            kept = await ask(client, "remember", text=text)
            acknowledged.append(kept["memory"]["id"])
            if len(acknowledged) == 40:
                os.kill(int(pid_file.read_text()), signal.SIGKILL)

    async with served(place, pid_file=pid_file) as client:
        ended = await asyncio.gather(
            *(write(client, who) for who in range(4)), return_exceptions=True
        )

    assert [type(each) for each in ended] == [MCPError] * 4
    assert len(acknowledged) >= 40
    async with served(place) as client:
        for id in acknowledged:
            history = await ask(client, "history", id=id)
            assert [each["operation"] for each in history["versions"]] == ["put"]
        await ask(client, "remember", text="It goes on.")
        assert (await ask(client, "recall", query="goes on"))["memories"]
    with koru_delta.open(place) as db:
        assert db.verify().ok


async def test_with_the_local_embedder_meaning_is_enough(place):
    async with served(place, "--embedder", "local") as client:
        kept = await ask(client, "remember", text="Her dog is called Rex.")
        await ask(client, "remember", text="Invoices are sent on Fridays.")
        [found] = (await ask(client, "recall", query="puppy pet animal", limit=1))["memories"]
        stats = json.loads((await client.read_resource(STATS)).contents[0].text)
    assert found["id"] == kept["memory"]["id"]
    assert found["relevance"] > 0.2
    assert (stats["found_by"], stats["embedder"]) == ("words and meaning", embedders.local().name)


def test_without_the_embedder_that_filled_it_a_memory_is_not_served(place):
    with koru_delta.open(place) as db:
        memory = db.workspace("agent", embedder=embedders.local()).ai_context()
        memory.remember_episode("Her dog is called Rex.")

    done = subprocess.run(
        command(place, "--embedder", "none"), env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert "--embedder local" in done.stderr


@pytest.mark.parametrize("ending", ["the input", signal.SIGTERM, signal.SIGINT])
def test_a_server_ends_cleanly_and_writes_nothing_but_the_protocol(place, ending):
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }  # fmt: skip
    kept = {
        "jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": {"name": "remember", "arguments": {"text": "It rained."}},
    }  # fmt: skip
    server = subprocess.Popen(
        command(place, "--embedder", "none"), env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("this is no JSON\n")
        answers = []
        for each in (hello, kept):
            server.stdin.write(json.dumps(each) + "\n")
            server.stdin.flush()
            answers.append(json.loads(server.stdout.readline()))
            if "id" not in answers[-1]:
                answers[-1] = json.loads(server.stdout.readline())
        if isinstance(ending, str):
            server.stdin.close()
        else:
            server.send_signal(ending)
        assert server.wait(timeout=60) == 0
        assert server.stdout.read() == ""
        assert "Traceback" not in server.stderr.read()  # type: ignore[union-attr]
    assert [each["id"] for each in answers] == [1, 2]
    with koru_delta.open(place) as db:
        assert [each.text for each in db.workspace("agent").ai_context().memories()] == [
            "It rained."
        ]


async def test_a_moment_is_gone_back_to_by_the_clock():
    clock = FixedClock()
    with koru_delta.open(clock=clock) as db:
        tools = Tools(db, db.workspace("agent").ai_context())
        async with Client(server_of(tools)) as client:
            monday = await ask(client, "remember", kind="fact", name="plan", value="stay")
            clock.advance(seconds=86_400)
            await ask(client, "remember", kind="fact", name="plan", value="go")
            clock.advance(seconds=86_400)
            noon = "2026-01-01T12:00:00Z"
            then = await said(client, "as_of", moment=noon, fact="plan")
            assert then == (
                "As of 2026-01-01T12:00:00+00:00, 1 memory:\n"
                f"[1] (fact:plan, since {monday['memory']['valid_from']}) plan: stay"
            )
            assert monday["memory"]["recorded_at"].startswith("2026-01-01T00:00:00")
            recalled = await said(client, "recall", query="plan")
            assert recalled.startswith("1 memory, the most relevant first:\n[1] (fact:plan, since ")
            assert recalled.endswith(", relevance 1.00) plan: go")


async def test_no_argument_is_so_odd_that_there_is_neither_an_answer_nor_a_refusal():
    odd = (
        "", " ", "inf", -1, 2**70, 1e308, True, None, [], [None], ["x"], {"a": 1}, "\x00",
        "x" * 100_000, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "fact:", "claim:x:y",
        "tag:x",
    )  # fmt: skip
    fact, moment = {"ids": ["fact:n"]}, "2026-01-01T00:00:00Z"
    calls: list[tuple[str, dict[str, Any]]] = [
        ("remember", {"text": "x"}),
        ("remember", {"kind": "fact", "name": "n", "value": 1}),
        ("remember", {"kind": "procedure", "name": "p", "steps": ["s"]}),
        ("remember", {"kind": "outcome", "name": "p", "success": True}),
        ("recall", {"query": "x"}),
        ("as_of", {"moment": moment, "query": "x"}),
        ("as_of", {"moment": moment, "fact": "n"}),
        ("forget", {"query": "x"}),
        ("forget", {**fact, "mode": "ttl", "ttl_seconds": 9}),
        ("forget", {**fact, "mode": "restore"}),
        ("why", {"id": "fact:n"}),
        ("history", {"id": "fact:n"}),
    ]
    with koru_delta.open(clock=FixedClock()) as db:
        tools = Tools(db, db.workspace("agent").ai_context())
        async with Client(server_of(tools)) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            for name, usual in calls:
                for argument in listed[name].input_schema["properties"]:
                    for value in odd:
                        # What is neither would be an MCPError here.
                        result = await client.call_tool(name, {**usual, argument: value})
                        assert result.content[0].text
                        assert result.is_error is (result.structured_content is None)


def test_the_tools_have_the_names_that_were_promised():
    assert [tool.name for tool in ALL] == NAMES
