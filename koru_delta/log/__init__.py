"""The causal log: the one writer, the one place where times become positions."""

from koru_delta.log.audit import VerifyReport
from koru_delta.log.log import CausalLog
from koru_delta.log.writes import ANY, Pending, Write

__all__ = ["ANY", "CausalLog", "Pending", "VerifyReport", "Write"]
