"""The causal log: the one writer, the one place where times become positions."""

from koru_delta.log.append import ANY, Pending, Write
from koru_delta.log.audit import VerifyReport
from koru_delta.log.log import CausalLog

__all__ = ["ANY", "CausalLog", "Pending", "VerifyReport", "Write"]
