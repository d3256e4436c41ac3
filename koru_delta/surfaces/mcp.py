"""An agent's memory for any program that speaks MCP, over standard input and output.

Standard output carries nothing but the protocol. Calls run on threads of their own; those that
write keep the order in which they came. The end of the input, SIGTERM and SIGINT all end it
in the same way: what has begun is finished, then the database may be closed.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TextIO

import koru_delta
from koru_delta import KoruDeltaError
from koru_delta.errors import MissingExtraError
from koru_delta.surfaces import tools as memory_tools
from koru_delta.surfaces.tools import Tool, Tools, told

try:
    import anyio
    import anyio.to_thread
    from mcp import MCPError
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp.shared.message import SessionMessage
    from mcp.types import (
        INVALID_PARAMS,
        CallToolRequestParams,
        CallToolResult,
        JSONRPCError,
        JSONRPCNotification,
        JSONRPCRequest,
        JSONRPCResponse,
        ListResourcesResult,
        ListToolsResult,
        ReadResourceRequestParams,
        ReadResourceResult,
        Resource,
        TextContent,
        TextResourceContents,
        ToolAnnotations,
    )
    from mcp.types import Tool as Listed
except ImportError as error:
    raise MissingExtraError("serving a memory over MCP", "mcp") from error

STATS: Final = "memory://stats"
_PATIENCE_SECONDS: Final = 30  # for answers, once the input has ended
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


def serve(tools: Tools) -> None:
    """Serve tools over standard input and output until that ends."""
    with _until_asked_to_end() as given:
        try:
            anyio.run(_serve, server_of(tools), given)
        except* BrokenPipeError:
            pass  # whoever listened has gone, which is an end like any other


async def _serve(server: Server[Any], given: TextIO | None) -> None:
    """Serve until the input ends and what was asked in it is answered."""
    stdin = None if given is None else anyio.wrap_file(given)
    waiting = _Waiting()
    asking, asked = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    answering, answered = anyio.create_memory_object_stream[SessionMessage](0)
    async with stdio_server(stdin=stdin) as (received, answers), anyio.create_task_group() as tasks:

        async def hand_in() -> None:
            async with asking, received:
                async for each in received:
                    waiting.note(each)
                    await asking.send(each)
                with anyio.move_on_after(_PATIENCE_SECONDS):
                    await waiting.over()

        async def hand_out() -> None:
            async with answered, answers:
                async for each in answered:
                    await answers.send(each)
                    waiting.note(each)

        tasks.start_soon(hand_in)
        tasks.start_soon(hand_out)
        async with answering, asked:
            await server.run(asked, answering, server.create_initialization_options())


class _Waiting:
    """Which requests have not been answered."""

    def __init__(self) -> None:
        self._ids: set[object] = set()
        self._changed = anyio.Event()

    def note(self, each: SessionMessage | Exception) -> None:
        """A message of either side."""
        if isinstance(each, Exception):
            return
        match each.message:
            case JSONRPCRequest(id=asked):
                self._ids.add(asked)
            case JSONRPCResponse(id=answered) | JSONRPCError(id=answered):
                self._ids.discard(answered)
            case JSONRPCNotification(method="notifications/cancelled", params=dict(params)):
                self._ids.discard(params.get("requestId"))
        self._changed.set()
        self._changed = anyio.Event()

    async def over(self) -> None:
        """Return once none is."""
        while self._ids:
            await self._changed.wait()


def server_of(tools: Tools) -> Server[Any]:
    """The server that offers tools, for any transport."""
    known = {tool.name: tool for tool in memory_tools.ALL}
    turn = anyio.Lock()  # fair, so that writes keep their order

    async def list_tools(*_: object) -> ListToolsResult:
        return ListToolsResult(tools=[_listed(tool) for tool in known.values()])

    async def call_tool(_: object, params: CallToolRequestParams) -> CallToolResult:
        tool = known.get(params.name)
        if tool is None:
            return _refusal(f"there is no tool {params.name!r}; there are {', '.join(known)}")
        try:
            async with turn if tool.writes else nullcontext():
                # Not left alone when cancelled: a write that has begun is finished.
                answer = await anyio.to_thread.run_sync(tool.run, tools, params.arguments or {})
        except KoruDeltaError as error:
            return _refusal(told(error))
        return CallToolResult(
            content=[TextContent(type="text", text=answer.text())],
            structured_content=answer.model_dump(mode="json", exclude_none=True),
        )

    async def list_resources(*_: object) -> ListResourcesResult:
        return ListResourcesResult(
            resources=[
                Resource(
                    uri=STATS, name="stats", title="What is remembered, in numbers",
                    description="How many episodes, facts and procedures there are, how they are "
                    "found, and on which facts sources disagree.",
                    mime_type="application/json",
                )
            ]
        )  # fmt: skip

    async def read_resource(_: object, params: ReadResourceRequestParams) -> ReadResourceResult:
        if str(params.uri) != STATS:
            raise MCPError(INVALID_PARAMS, f"there is no {params.uri}; there is {STATS}")
        text = json.dumps(await anyio.to_thread.run_sync(tools.stats), ensure_ascii=False)
        return ReadResourceResult(
            contents=[TextResourceContents(uri=STATS, mime_type="application/json", text=text)]
        )

    return Server(
        "koru-delta", title="KoruDelta memory", version=koru_delta.__version__,
        instructions=memory_tools.INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=call_tool,
        on_list_resources=list_resources, on_read_resource=read_resource,
    )  # fmt: skip


def _listed(tool: Tool) -> Listed:
    return Listed(
        name=tool.name, title=tool.title, description=tool.description,
        input_schema=_plain(tool.arguments.model_json_schema()),
        output_schema=_plain(tool.answer.model_json_schema()),
        annotations=ToolAnnotations(
            read_only_hint=not tool.writes, destructive_hint=tool.destroys,
            idempotent_hint=not tool.writes, open_world_hint=False,
        ),
    )  # fmt: skip


def _plain(schema: Any, named: Mapping[str, Any] | None = None) -> Any:
    """A schema without references, and without null for what is left out: some clients know none.

    It must not be recursive.
    """
    if isinstance(schema, list):
        return [_plain(each, named) for each in schema]
    if not isinstance(schema, dict):
        return schema
    named = schema.get("$defs", {}) if named is None else named
    made = {
        name: _plain(each, named) for name, each in schema.items() if name not in ("$defs", "$ref")
    }
    if "$ref" in schema:
        made = _plain(named[schema["$ref"].removeprefix("#/$defs/")], named) | made
    options = [each for each in made.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        made = options[0] | {name: each for name, each in made.items() if name != "anyOf"}
    if made.get("default", ...) is None:
        del made["default"]
    return made


def _refusal(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


class _Input(io.RawIOBase):
    """Standard input, which also ends when somebody writes into `wake`.

    A thread that waits for input cannot be interrupted otherwise.
    """

    def __init__(self, source: int, woken: int) -> None:
        self._source, self._woken = source, woken

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as there is; 0 at the end."""
        ready, _, _ = select.select([self._source, self._woken], [], [])
        if self._woken in ready:
            return 0
        given = os.read(self._source, len(buffer))
        buffer[: len(given)] = given
        return len(given)


@contextmanager
def _until_asked_to_end() -> Iterator[TextIO | None]:
    """Standard input, whose end is also brought about by signals; None is as it is."""
    if sys.platform == "win32":  # where `select` knows only sockets, and nobody sends SIGTERM
        yield None
        return
    woken, wake = os.pipe()
    before = {each: signal.signal(each, lambda *_: _wake(wake)) for each in _ENDING}
    try:
        source = io.BufferedReader(_Input(sys.stdin.fileno(), woken))
        yield io.TextIOWrapper(source, encoding="utf-8", errors="replace")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(woken)
        os.close(wake)


def _wake(wake: int) -> None:
    os.write(wake, b".")
