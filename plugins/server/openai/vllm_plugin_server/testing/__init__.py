"""Attacks on a running server, each a command: ``python -m vllm_plugin_server.testing --help``. docs/reliability.md has
what they found."""
