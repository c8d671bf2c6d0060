"""The proxy against its peers: `make bench`, or `make bench QUICK=1`. What is measured and how: docs/performance.md."""
