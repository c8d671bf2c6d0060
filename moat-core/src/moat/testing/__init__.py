"""For the tests of plugins: a Host that is not a machine, and the promises that every provider and runtime keeps."""

from moat.testing.contract import ProviderContract
from moat.testing.host import FakeHost
from moat.testing.runtimes import RuntimeContract

__all__ = ["FakeHost", "ProviderContract", "RuntimeContract"]
