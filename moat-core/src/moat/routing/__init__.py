"""From outside into a run's ports, by name: http(s)://<endpoint>.<agent>.localhost:8080. Loopback only."""
