"""Credentials at rest: encrypted files, and the key that opens them. Never asks, prints or reaches a network."""
