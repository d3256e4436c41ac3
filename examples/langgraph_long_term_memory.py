"""A LangGraph agent whose threads and long-term memory are in one database, with one past.

`KoruDeltaSaver` keeps the checkpoints of every thread, `AgentMemory` what is true whatever the
thread. Why was a bad answer given? Go back to its checkpoint, and ask the memory what it
believed then. The chat model is scripted, so this runs offline: any other goes in its place.

Run it with: python examples/langgraph_long_term_memory.py (needs the extras langgraph and local)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import koru_delta
from koru_delta import AgentMemory, Database, embedders
from koru_delta_langchain import KoruDeltaSaver


class State(MessagesState):
    """A thread: its messages, and what was recalled for the last of them."""

    recalled: str


def remember(name: str, value: str) -> AIMessage:
    arguments = {"name": name, "value": value}
    return AIMessage("", tool_calls=[ToolCall(name="remember", args=arguments, id=value)])


MODEL = GenericFakeChatModel(
    messages=iter(
        [
            remember("diet", "Ada eats no fish"),
            AIMessage("I will remember that."),
            AIMessage("How about a mushroom risotto?"),
            remember("diet", "Ada eats fish, but no meat"),
            AIMessage("I will remember that."),
            AIMessage("How about grilled mackerel?"),
        ]
    )
)


def build(db: Database, memory: AgentMemory) -> CompiledStateGraph:
    @tool("remember")
    def keep(name: str, value: str, config: RunnableConfig) -> str:
        """Keep what is true of the user under a name; what it said before is the past."""
        thread = config["configurable"]["thread_id"]
        return f"remembered: {memory.remember_fact(name, value, text=value, session=thread).text}"

    def recall(state: State) -> dict[str, str]:
        return {"recalled": str(memory.context(state["messages"][-1].text, budget_tokens=200))}

    def answer(state: State) -> dict[str, list[AIMessage]]:
        prompt = [("system", f"You plan meals.\n\n{state['recalled']}"), *state["messages"]]
        said = MODEL.invoke(prompt)
        assert isinstance(said, AIMessage)
        return {"messages": [said]}

    builder = StateGraph(State)
    builder.add_node("recall", recall)
    builder.add_node("answer", answer)
    builder.add_node("tools", ToolNode([keep]))
    builder.add_edge(START, "recall")
    builder.add_edge("recall", "answer")
    builder.add_conditional_edges("answer", tools_condition)
    builder.add_edge("tools", "answer")
    return builder.compile(checkpointer=KoruDeltaSaver(database=db))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, koru_delta.open(Path(folder) / "agents") as db:
        memory = db.workspace("meals", embedder=embedders.local()).ai_context()
        agent = build(db, memory)

        def say(thread: str, text: str) -> str:
            config: RunnableConfig = {"configurable": {"thread_id": thread}}
            answer = agent.invoke({"messages": [HumanMessage(text)]}, config)["messages"][-1].text
            print(f"{thread:8} {text}\n         {answer}")
            return str(answer)

        say("monday", "I eat no fish.")
        say("tuesday", "What shall I eat?")
        say("friday", "I have begun to eat fish.")
        say("saturday", "What shall I eat?")

        # Long-term memory crosses threads, and knows the present.
        saturday = agent.get_state({"configurable": {"thread_id": "saturday"}})
        assert "Ada eats fish, but no meat" in saturday.values["recalled"]

        # Why did it not offer fish on Tuesday? What did it believe then?
        tuesday = agent.get_state({"configurable": {"thread_id": "tuesday"}})
        assert tuesday.created_at is not None
        then = memory.what_did_i_believe("diet", tuesday.created_at)
        now = memory.recall("what does Ada eat", types="fact", k=1)
        assert then is not None
        print(f"\nWhat did you believe then? {then.text} (learnt in thread {then.session!r})")
        print(f"And now?                   {now[0].text} (learnt in thread {now[0].session!r})")
        assert (then.value, then.session) == ("Ada eats no fish", "monday")
        assert (now[0].value, now[0].session) == ("Ada eats fish, but no meat", "friday")
        assert then.text in tuesday.values["recalled"]  # that is what it went by

        # The same search as of that moment finds what it found then.
        [found] = memory.recall("what does Ada eat", k=1, as_of=tuesday.created_at)
        assert found.version.id == then.version.id

        # A fact's whole story, and the log that proves it.
        print("\nThe diet, as far as is known:")
        for told in memory.timeline("diet"):
            print(f"  {told.citation}: {told.text}")
        assert len(memory.timeline("diet")) == 2
        assert db.verify().ok


if __name__ == "__main__":
    main()
