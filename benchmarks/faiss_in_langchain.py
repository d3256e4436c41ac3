"""FAISS as LangChain has it, which is in langchain-community alone.

That package warns, when it is imported, that it will not be kept up. Nobody here is to heed
that before there is another home for its FAISS, so it is imported here, and nowhere else.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

__all__ = ["FAISS", "InMemoryDocstore"]
