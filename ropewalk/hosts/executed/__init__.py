"""A plan in a real engine: run in the engine's own environment, its next-token distributions held against transformers'."""

from ropewalk.hosts.executed import wire
from ropewalk.hosts.executed.child import Answer, Probe, probe
from ropewalk.hosts.executed.divergence import kl
from ropewalk.hosts.executed.environments import missing, python_of
from ropewalk.hosts.executed.execution import execute

__all__ = ["Answer", "Probe", "execute", "kl", "missing", "probe", "python_of", "wire"]
