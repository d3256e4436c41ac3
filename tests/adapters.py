"""Kill a process that writes through the adapters at random moments; all stays of one piece.

    python -m tests.adapters --kills 100 [--turns 100] [--seed N] [--keep]

Each round forks one or two writers into the same directory. They add documents, index them,
put checkpoints and writes, prune, copy and delete threads, put items of the agents' store,
add to chat histories, run an ingestion pipeline and fill document stores, and tell every
call over a pipe once it has returned. Then they are killed, wherever they are. The
directory is opened again: what was told must be there, whole; what was begun must be there
whole or not at all; documents must have their records, items their vectors, checkpoints
all values of their channels; and the log must verify.

Before that, three processes write to the same few names at once, for so many turns each: no
moment there ever was may show such things apart, and none of them a checkpoint in part.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import index
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import ChatMessage
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

import koru_delta
from koru_delta.testing import HashEmbedder
from koru_delta_langchain import (
    KoruDeltaByteStore,
    KoruDeltaChatMessageHistory,
    KoruDeltaRecordManager,
    KoruDeltaSaver,
    KoruDeltaStore,
    KoruDeltaVectorStore,
)
from koru_delta_llamaindex import KoruDeltaChatStore as LlamaChats
from koru_delta_llamaindex import KoruDeltaDocumentStore, KoruDeltaEmbedding, KoruDeltaKVStore
from koru_delta_llamaindex import KoruDeltaVectorStore as LlamaVectors

ROUNDS_PER_DIRECTORY = 8
LONGEST_LIFE_SECONDS = 0.6
EMBEDDER = HashEmbedder(8)
CHANNELS = ("a", "b", "c")


@dataclass
class Campaign:
    """What has been done and what has gone wrong."""

    kills: int = 0
    told: int = 0
    problems: list[str] = field(default_factory=list)


class Stores:
    """Every store of the adapters in one database."""

    def __init__(self, path: Path) -> None:
        self.db = db = koru_delta.open(
            path, durability="relaxed"
        )  # a kill loses nothing all the same
        self.documents = KoruDeltaVectorStore(EMBEDDER, database=db)
        self.records = KoruDeltaRecordManager("site", store=self.documents, source_id_key="source")
        self.saver = KoruDeltaSaver(database=db)
        self.items = KoruDeltaStore(
            database=db,
            index={"dims": 8, "embed": lambda ts: EMBEDDER(ts).tolist(), "fields": ["texts[*]"]},
        )
        self.bytes = KoruDeltaByteStore(database=db)
        self.nodes = LlamaVectors(db)
        self.docstore = KoruDeltaDocumentStore(db)
        self.values = KoruDeltaKVStore(db, namespace="values")
        self.chats = LlamaChats(db)

    def history(self, name: str) -> KoruDeltaChatMessageHistory:
        return KoruDeltaChatMessageHistory(name, database=self.db)


# What a writer does: each call makes something of a name that is only its own


def _adds(s: Stores, name: str) -> None:
    s.documents.add_texts(
        [f"{name} {n}" for n in range(3)], [{"source": name}] * 3,
        ids=[f"{name}/{n}" for n in range(3)],
    )  # fmt: skip


def _indexes(s: Stores, name: str) -> None:
    for texts in (["one", "two"], ["two", "three"]):
        made = [
            Document(page_content=f"{name} {text}", metadata={"source": name}) for text in texts
        ]
        index(
            made, s.records, s.documents, cleanup="incremental", source_id_key="source",
            key_encoder="sha256",
        )  # fmt: skip


def _checkpoints(s: Stores, name: str) -> None:
    config: Any = _thread(name)
    values: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    for step in range(3):
        new = CHANNELS if step == 0 else CHANNELS[step : step + 1]
        for channel in new:
            values[channel] = [name, step, "x" * random.choice([1, 6_000])]
            versions[channel] = s.saver.get_next_version(versions.get(channel), None)
        checkpoint: Any = empty_checkpoint() | {
            "channel_values": dict(values), "channel_versions": dict(versions),
        }  # fmt: skip
        config = s.saver.put(
            config, checkpoint, {"step": step}, {channel: versions[channel] for channel in new}
        )
        s.saver.put_writes(config, [("a", step), ("b", step), ("c", step)], "task")


def _prunes(s: Stores, name: str) -> None:
    _checkpoints(s, name)
    s.saver.prune([name])


def _deletes(s: Stores, name: str) -> None:
    _checkpoints(s, name)
    s.saver.delete_thread(name)


def _copies(s: Stores, name: str) -> None:
    _checkpoints(s, name)
    s.saver.copy_thread(name, f"{name}+")


def _items(s: Stores, name: str) -> None:
    for texts in (["rain", "wind", "sun"], ["snow"]):
        s.items.put(("crash", name), "k", {"texts": texts})


def _chats(s: Stores, name: str) -> None:
    s.history(name).add_messages([HumanMessage(str(n)) for n in range(3)])


def _bytes(s: Stores, name: str) -> None:
    s.bytes.mset([(f"{name}/{n}", bytes([n, 255])) for n in range(3)])


def _llama_nodes(s: Stores, name: str) -> None:
    source = RelatedNodeInfo(node_id=name)
    vectors = EMBEDDER([f"{name} {n}" for n in range(3)]).tolist()
    s.nodes.add(
        [
            TextNode(
                id_=f"{name}/{n}", text=f"{name} {n}", embedding=vectors[n],
                relationships={NodeRelationship.SOURCE: source},
            )
            for n in range(3)
        ]
    )  # fmt: skip


def _llama_gone(s: Stores, name: str) -> None:
    _llama_nodes(s, name)
    s.nodes.delete(name)


def _llama_chats(s: Stores, name: str) -> None:
    s.chats.set_messages(name, [ChatMessage(str(n)) for n in range(3)])
    s.chats.delete_last_message(name)


def _llama_values(s: Stores, name: str) -> None:
    s.values.put_all([(f"{name}/{n}", {"n": n}) for n in range(3)])


def _llama_pipeline(s: Stores, name: str) -> None:
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0)
    pipeline = IngestionPipeline(
        transformations=[splitter, KoruDeltaEmbedding(EMBEDDER)],
        docstore=s.docstore, vector_store=s.nodes, disable_cache=True,
    )  # fmt: skip
    for text in ("rain. " * 30, "sun. " * 30):
        pipeline.run(documents=[LlamaDocument(id_=name, text=text)])


# What must be so afterwards, where the call has returned (`told`) and where it has not


def _check_adds(s: Stores, name: str, told: bool) -> object:
    found = s.documents.get_by_ids([f"{name}/{n}" for n in range(3)])
    return len(found) == 3 or (not found and not told)


def _check_indexes(s: Stores, name: str, told: bool) -> object:
    if not told:
        return True  # that records agree with documents is looked at for all of them
    keys = s.records.list_keys(group_ids=[name])
    texts = {document.page_content for document in s.documents.get_by_ids(keys)}
    return texts == {f"{name} two", f"{name} three"}


def _check_checkpoints(s: Stores, name: str, told: bool) -> object:
    found = [*s.saver.list(_thread(name))]
    return all(map(_whole, found)) and (not told or len(found) == 3)


def _check_prunes(s: Stores, name: str, told: bool) -> object:
    found = [*s.saver.list(_thread(name))]
    return all(map(_whole, found)) and (not told or len(found) == 1)


def _check_deletes(s: Stores, name: str, told: bool) -> object:
    found = [*s.saver.list(_thread(name))]
    left = [
        key for kind in "cbw"
        for key in s.db.list_keys("langgraph.checkpoints", prefix=f"{kind}/{name}/")
    ]  # fmt: skip
    return all(map(_whole, found)) and (not told or not left) and (bool(found) or not left)


def _check_copies(s: Stores, name: str, told: bool) -> object:
    found, copied = [*s.saver.list(_thread(name))], [*s.saver.list(_thread(f"{name}+"))]
    if not all(map(_whole, found + copied)):
        return False
    return [t.checkpoint for t in copied] == [t.checkpoint for t in found] if copied else not told


def _check_items(s: Stores, name: str, told: bool) -> object:
    item = s.items.get(("crash", name), "k")
    return item is not None and item.value == {"texts": ["snow"]} if told else True


def _check_chats(s: Stores, name: str, told: bool) -> object:
    found = [message.content for message in s.history(name).messages]
    return found == ["0", "1", "2"] or (not found and not told)


def _check_bytes(s: Stores, name: str, told: bool) -> object:
    found = s.bytes.mget([f"{name}/{n}" for n in range(3)])
    return found == [bytes([n, 255]) for n in range(3)] or (found == [None] * 3 and not told)


def _check_llama_nodes(s: Stores, name: str, told: bool) -> object:
    found = s.nodes.get_nodes([f"{name}/{n}" for n in range(3)])
    return len(found) == 3 or (not found and not told)


def _check_llama_gone(s: Stores, name: str, told: bool) -> object:
    found = s.nodes.get_nodes([f"{name}/{n}" for n in range(3)])
    return not found or (len(found) == 3 and not told)


def _check_llama_chats(s: Stores, name: str, told: bool) -> object:
    found = [message.content for message in s.chats.get_messages(name)]
    return found == ["0", "1"] or (found in ([], ["0", "1", "2"]) and not told)


def _check_llama_values(s: Stores, name: str, told: bool) -> object:
    found = [s.values.get(f"{name}/{n}") for n in range(3)]
    return found == [{"n": n} for n in range(3)] or (found == [None] * 3 and not told)


def _check_llama_pipeline(s: Stores, name: str, told: bool) -> object:
    if not told:  # the pipeline itself makes several calls, in an order of its own
        return True
    found = [node for node in s.nodes.get_nodes() if node.ref_doc_id == name]
    return bool(found) and all("sun" in node.get_content() for node in found)


WORKS: dict[str, tuple[Callable[[Stores, str], None], Callable[[Stores, str, bool], object]]] = {
    "adds": (_adds, _check_adds),
    "indexes": (_indexes, _check_indexes),
    "checkpoints": (_checkpoints, _check_checkpoints),
    "prunes": (_prunes, _check_prunes),
    "deletes": (_deletes, _check_deletes),
    "copies": (_copies, _check_copies),
    "items": (_items, _check_items),
    "chats": (_chats, _check_chats),
    "bytes": (_bytes, _check_bytes),
    "llama-nodes": (_llama_nodes, _check_llama_nodes),
    "llama-gone": (_llama_gone, _check_llama_gone),
    "llama-chats": (_llama_chats, _check_llama_chats),
    "llama-values": (_llama_values, _check_llama_values),
    "llama-pipeline": (_llama_pipeline, _check_llama_pipeline),
}


def _thread(name: str) -> Any:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


def _whole(found: CheckpointTuple) -> bool:
    versions = found.checkpoint["channel_versions"]
    writes = {channel for _, channel, _ in found.pending_writes or ()}
    return found.checkpoint["channel_values"].keys() == versions.keys() and writes in (
        set(), set(CHANNELS),
    )  # fmt: skip


def disagreements(s: Stores, as_of: Any = None) -> Iterator[str]:
    """Where things that are written together are not together."""
    view = s.db.as_of(as_of)
    apart = {*view.list_keys("langchain")} ^ {*view.list_keys("langchain.records/site")}
    if apart:
        yield f"at {view.seq} records and documents are apart: {sorted(apart)[:3]}"
    texts = Counter(
        (row.key, json.dumps(row.value["value"]))
        for row in view.query("langgraph.store")
        for _ in row.value["value"]["texts"]
    )
    rows = Counter(
        (row.value["item"], json.dumps(row.value["value"]))
        for row in view.query("langgraph.store.vectors")
    )
    if texts != rows:
        yield f"at {view.seq} items and vectors are apart: {(texts - rows) + (rows - texts)}"


# Several processes at the same names


def _contends_for_items(s: Stores, chance: random.Random) -> None:
    namespace, key = ("race",), f"k{chance.randrange(2)}"
    if chance.random() < 0.3:
        s.items.delete(namespace, key)
    else:
        texts = [f"w{chance.randrange(50)}" for _ in range(chance.randrange(1, 5))]
        s.items.put(namespace, key, {"texts": texts})


def _contends_for_documents(s: Stores, chance: random.Random) -> None:
    made = [
        Document(page_content=f"t{chance.randrange(12)}", metadata={"source": "s"})
        for _ in range(4)
    ]  # fmt: skip
    index(
        made, s.records, s.documents, cleanup=chance.choice(["incremental", None]),
        source_id_key="source", key_encoder="sha256",
    )  # fmt: skip
    keys = s.records.list_keys()
    if keys:
        chance.choice([s.records.delete_keys, s.documents.delete])(chance.sample(keys, 1))


def _contends_for_threads(s: Stores, chance: random.Random) -> None:
    config, what = _thread(f"t{chance.randrange(2)}"), chance.random()
    found = s.saver.get_tuple(config)
    assert found is None or _whole(found), found
    name = config["configurable"]["thread_id"]
    if what < 0.5:
        checkpoint: Any = empty_checkpoint()
        if found is not None:
            config = found.config
            checkpoint["channel_values"] = found.checkpoint["channel_values"]
            checkpoint["channel_versions"] = found.checkpoint["channel_versions"]
        channel = chance.choice(CHANNELS)
        version = s.saver.get_next_version(checkpoint["channel_versions"].get(channel), None)
        checkpoint["channel_values"][channel] = [what]
        checkpoint["channel_versions"][channel] = version
        config = s.saver.put(config, checkpoint, {"step": 1}, {channel: version})
        s.saver.put_writes(config, [(channel, 1) for channel in CHANNELS], "task")
    elif what < 0.65:
        s.saver.prune([name])
    elif what < 0.75:
        s.saver.delete_thread(name)
    elif what < 0.85:
        s.saver.copy_thread(name, f"t{chance.randrange(2)}")
    else:
        for each in s.saver.list(config):
            assert _whole(each), each


def contest(turns: int, *, seed: int) -> list[str]:
    """Let three processes write to the same names, so many turns each; what went wrong."""
    problems: list[str] = []
    for work in (_contends_for_items, _contends_for_documents, _contends_for_threads):
        with tempfile.TemporaryDirectory(prefix="koru-adapters-") as folder:
            path = Path(folder) / "db"
            Stores(path).db.close()
            children = []
            for number in range(3):
                child = os.fork()
                if child == 0:
                    _contend(path, work, turns, random.Random(f"{seed}.{number}"))
                children.append(child)
            for child in children:
                status = os.waitpid(child, 0)[1]
                if status:
                    problems.append(f"{work.__name__}: a process ended with {status}; see above")
            s = Stores(path)
            moments = [] if work is _contends_for_threads else s.db.commits()
            apart = (each for commit in moments for each in disagreements(s, commit))
            problems += [f"{work.__name__}: {each}" for each in islice(apart, 3)]
            problems += [
                f"{work.__name__}: {found.config} lacks values"
                for found in s.saver.list(None)
                if not _whole(found)
            ]
            problems += [f"verify: {problem}" for problem in s.db.verify().problems]
            s.db.close()
    return problems


def _contend(
    path: Path, work: Callable[[Stores, random.Random], None], turns: int, chance: random.Random
) -> None:
    status = 1
    try:
        s = Stores(path)
        for _ in range(turns):
            work(s, chance)
        s.db.close()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        traceback.print_exc()
    finally:
        os._exit(status)


def campaign(kills: int, *, seed: int, say: Callable[[str], None], keep: bool = False) -> Campaign:
    """Kill `kills` writers; the result's `problems` are empty if all went well."""
    chance = random.Random(seed)
    done = Campaign()
    folder = Path(tempfile.mkdtemp(prefix="koru-adapters-"))
    try:
        number = 0
        while done.kills < kills and not done.problems:
            number += 1
            path = folder / str(number)
            Stores(path).db.close()  # its files, and the namespaces, are there from the start
            for _ in range(ROUNDS_PER_DIRECTORY):
                if done.kills < kills and not done.problems:
                    _round(path, chance, done, kills)
            say(f"{done.kills}/{kills} kills; {done.told:,} calls told")
            if not done.problems and not keep:
                shutil.rmtree(path, ignore_errors=True)
        if done.problems:
            say(f"the directory is {path}")
    finally:
        if not keep and not done.problems:
            shutil.rmtree(folder, ignore_errors=True)
    return done


def _round(path: Path, chance: random.Random, done: Campaign, kills: int) -> None:
    pipes: dict[int, int] = {}  # reading end -> process
    for _ in range(min(chance.choice([1, 2]), kills - done.kills)):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _write_until_killed(path, writing, chance.random())
        os.close(writing)
        pipes[reading] = child
    now = time.monotonic()
    until = {pipe: now + LONGEST_LIFE_SECONDS * (0.1 + chance.random()) for pipe in pipes}
    lines = dict.fromkeys(pipes, b"")
    for pipe in sorted(pipes, key=until.__getitem__):
        while (wait := until[pipe] - time.monotonic()) > 0:
            for each in select.select(list(pipes), [], [], wait)[0]:
                lines[each] += os.read(each, 1 << 16)
        os.kill(pipes[pipe], signal.SIGKILL)
        os.waitpid(pipes[pipe], 0)
        done.kills += 1
    begun: dict[tuple[str, str], bool] = {}
    for pipe in pipes:
        while more := os.read(pipe, 1 << 16):
            lines[pipe] += more
        os.close(pipe)
        for line in lines[pipe].decode().splitlines(keepends=True):
            if line.startswith("!"):
                done.problems.append(f"a writer failed: {line}")
            elif line.endswith("\n"):
                work, name, told = json.loads(line)
                begun[work, name] = told
                done.told += told
    s = Stores(path)
    try:
        for (work, name), told in begun.items():
            if not WORKS[work][1](s, name, told):
                done.problems.append(
                    f"{work} of {name}, {'told' if told else 'begun'}, is not whole"
                )
        done.problems += disagreements(s)
        done.problems += [f"verify: {problem}" for problem in s.db.verify().problems]
    except koru_delta.KoruDeltaError:
        done.problems.append(traceback.format_exc())
    finally:
        s.db.close()


def _write_until_killed(path: Path, pipe: int, chance: float) -> None:
    try:
        random.seed(chance)
        mine = f"{os.getpid()}-{time.monotonic_ns()}"
        s = Stores(path)
        for number in range(1_000_000):
            work, name = random.choice([*WORKS]), f"{mine}-{number}"
            for told in (False, True):
                if told:
                    WORKS[work][0](s, name)
                os.write(pipe, json.dumps([work, name, told]).encode() + b"\n")
    except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's frames
        os.write(pipe, b"!" + repr(traceback.format_exc()).encode()[-3000:] + b"\n")
        time.sleep(60)
    finally:
        os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", action="store_true", help="leave the directories behind")
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    problems = contest(given.turns, seed=seed)
    done = campaign(
        given.kills, seed=seed, keep=given.keep, say=lambda line: print(line, flush=True)
    )
    problems += done.problems
    for problem in problems:
        print(f"PROBLEM: {problem}")
    print(f"{done.kills} kills, seed {seed}: {done.told:,} calls told, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
