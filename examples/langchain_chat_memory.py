"""A LangChain chat agent that remembers from one conversation to the next, and knows why.

Before each answer it is given what its memory has to do with the message, with citations; with
tools it keeps facts, and looks up what it believed earlier. What it answers is remembered too,
with what it was told as its cause. The chat model is scripted, so this runs offline: any other
goes in its place.

Run it with: python examples/langchain_chat_memory.py (needs the extras langchain and local)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import BaseTool, tool

import koru_delta
from koru_delta import AgentMemory, Memory, embedders
from koru_delta.testing import FixedClock

MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)
PROMPT = ChatPromptTemplate(
    [
        ("system", "You are a helpful assistant. Cite what you go by as [1].\n\n{memory}"),
        MessagesPlaceholder("messages"),
    ]
)


class ChatAgent:
    """One conversation with an agent whose memory outlives it."""

    def __init__(self, model: BaseChatModel, memory: AgentMemory, session: str) -> None:
        self.memory, self.session = memory, session
        self.model = PROMPT | model  # a model that can: PROMPT | model.bind_tools(self.tools())
        self.messages: list[AnyMessage] = []
        self.heard: Memory | None = None
        self.told = ""

    def say(self, text: str) -> Memory:
        """Answer a message; returns what is remembered of the answer."""
        context = self.memory.context(text, budget_tokens=200, types=["fact", "procedure"])
        self.told = str(context)
        self.heard = self.memory.remember_episode(
            f"The user said: {text}", session=self.session, source="user"
        )
        tools = {each.name: each for each in self.tools()}
        self.messages.append(HumanMessage(text))
        answer = self.answer()
        while answer.tool_calls:
            self.messages += [tools[call["name"]].invoke(call) for call in answer.tool_calls]
            answer = self.answer()
        self.memory.used(context.memories)
        return self.memory.remember_episode(
            f"I answered: {answer.text}", session=self.session, source="assistant",
            causes=[each.version for each in (self.heard, *context.memories)],
        )  # fmt: skip

    def answer(self) -> AIMessage:
        answer = self.model.invoke({"memory": self.told, "messages": self.messages})
        assert isinstance(answer, AIMessage)
        self.messages.append(answer)
        return answer

    def tools(self) -> Iterable[BaseTool]:
        @tool
        def remember(name: str, value: str) -> str:
            """Keep what is true of the user under a name; what it said before is the past."""
            causes = [] if self.heard is None else [self.heard.version]
            kept = self.memory.remember_fact(name, value, session=self.session, causes=causes)
            return f"remembered {kept.text}"

        @tool
        def what_did_i_believe(name: str, at: str) -> str:
            """Look up what you believed of a fact at an earlier moment (ISO 8601 with a zone)."""
            believed = self.memory.what_did_i_believe(name, at)
            return "nothing" if believed is None else f"{believed.text} ({believed.citation})"

        return remember, what_did_i_believe


def call(name: str, /, **arguments: str) -> AIMessage:
    return AIMessage("", tool_calls=[ToolCall(name=name, args=arguments, id=name)])


MODEL = GenericFakeChatModel(
    messages=iter(
        [
            call("remember", name="home-city", value="Paris"),
            AIMessage("Paris is lovely. I will remember."),
            call("remember", name="home-city", value="Rome"),
            AIMessage("Congratulations on the move!"),
            AIMessage("You live in Rome [1]."),
            call("what_did_i_believe", name="home-city", at="2026-03-02T12:00:00Z"),
            AIMessage("On Monday I believed that you live in Paris."),
        ]
    )
)


def main() -> None:
    clock = FixedClock(MONDAY)
    with (
        tempfile.TemporaryDirectory() as folder,
        koru_delta.open(Path(folder) / "agents", clock=clock) as db,
    ):
        memory = db.workspace("assistant", embedder=embedders.local()).ai_context()

        def talk(day: str, text: str) -> tuple[ChatAgent, Memory]:
            agent = ChatAgent(MODEL, memory, session=day)
            answer = agent.say(text)
            print(f"{day:10} {text}\n           {answer.text}")
            return agent, answer

        agent, _ = talk("monday", "I live in Paris.")
        assert agent.told == ""  # it knew nothing yet
        clock.advance(seconds=86_400)
        agent, _ = talk("tuesday", "I have moved to another home city, Rome.")
        assert "home city: Paris" in agent.told
        clock.advance(seconds=86_400)
        agent, answer = talk("wednesday", "Which home city do I live in?")
        assert "[1] (fact, since 2026-03-03 09:00 UTC) home city: Rome" in agent.told
        assert "Paris" not in agent.told

        sources = [version.value["text"] for version in memory.why(answer)]
        print("\nWhy did it say that?", *sources, sep="\n  ")
        assert sorted(sources) == [
            "The user said: I have moved to another home city, Rome.",
            "The user said: Which home city do I live in?",
            "home city: Rome",
        ]

        print()
        agent, _ = talk("thursday", "Where did you think I live, on Monday?")
        looked_up = agent.messages[2].text
        print(f"           (it looked that up: {looked_up})")
        assert looked_up.startswith("home city: Paris (fact, since 2026-03-02 09:00 UTC")


if __name__ == "__main__":
    main()
