"""The tools by which a model uses an agent's memory, whatever protocol they are served over."""

from koru_delta.surfaces.tools.answers import Answer
from koru_delta.surfaces.tools.arguments import Arguments
from koru_delta.surfaces.tools.offered import ALL, INSTRUCTIONS, Tool, told
from koru_delta.surfaces.tools.work import Tools

__all__ = ["ALL", "INSTRUCTIONS", "Answer", "Arguments", "Tool", "Tools", "told"]
