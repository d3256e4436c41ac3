"""A retriever that answers as of last week: LangChain over documents that change.

Run it with: python examples/langchain_time_travel.py (needs the extras langchain and local)
"""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document

from koru_delta import embedders
from koru_delta_langchain import KoruDeltaVectorStore

HANDBOOK = {
    "leave": "Every employee has 25 days of paid leave a year.",
    "travel": "Trips under four hours are made by train, second class.",
    "laptop": "Laptops are replaced after three years.",
}
REVISED = {"leave": "Every employee has 30 days of paid leave a year, five of them in winter."}


def documents(pages: dict[str, str]) -> Sequence[Document]:
    return [Document(text, id=name, metadata={"page": name}) for name, text in pages.items()]


def main() -> None:
    store = KoruDeltaVectorStore(embedders.local())
    store.add_documents(list(documents(HANDBOOK)))
    last_week = store.database.commits()[-1]
    store.add_documents(list(documents(REVISED)))

    question = "How many days of holiday do I get?"
    now = store.as_retriever(search_kwargs={"k": 1}).invoke(question)[0]
    then = store.as_retriever(search_kwargs={"k": 1, "as_of": last_week}).invoke(question)[0]
    print("Now:      ", now.page_content)
    print("Last week:", then.page_content)
    assert (now.id, then.id) == ("leave", "leave")
    assert "30 days" in now.page_content
    assert "25 days" in then.page_content

    versions = store.database.history("langchain", "leave")
    print(f"{len(versions)} versions of the page:")
    for version in versions:
        print(f"  {version.time:%Y-%m-%d %H:%M:%S} {version.id[:12]}")


if __name__ == "__main__":
    main()
