"""The command line. Every word moat says to its user is said in `output`; every error is caught in `main`."""
