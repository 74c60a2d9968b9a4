"""Engines of further hosts: their nodes come to a server's gate over TCP, authenticated and encrypted (CURVE)."""
