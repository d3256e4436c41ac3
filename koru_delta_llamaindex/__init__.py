"""KoruDelta for LlamaIndex: reserved, and empty in this release.

The LlamaIndex stores are not written yet; importing this package gives nothing.
A LlamaIndex embedding already works as the `embedder=` of `koru_delta.open`.
"""

from __future__ import annotations

__all__: list[str] = []
