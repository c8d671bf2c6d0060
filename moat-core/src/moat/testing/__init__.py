"""For the tests of plugins: a Host that is not a machine, and what every provider, agent and runtime promises."""

from moat.testing.agents import AgentContract
from moat.testing.contract import ProviderContract
from moat.testing.host import FakeHost
from moat.testing.runtimes import RuntimeContract

__all__ = ["AgentContract", "FakeHost", "ProviderContract", "RuntimeContract"]
