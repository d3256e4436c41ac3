"""KoruDelta for LangChain."""

__all__: list[str] = []
