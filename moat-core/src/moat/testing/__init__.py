"""For the tests of plugins: a Host that is not a machine, and the promises that every provider keeps."""

from moat.testing.contract import ProviderContract
from moat.testing.host import FakeHost

__all__ = ["FakeHost", "ProviderContract"]
