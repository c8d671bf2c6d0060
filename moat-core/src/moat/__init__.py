"""moat: run agents in sealed sandboxes that hold no credentials and have no way out but the proxy."""

__version__ = "0.1.0"
