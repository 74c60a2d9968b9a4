"""Settings: declared once, and then a flag, a TOML or YAML key, an ``LLM(...)`` argument and a docs row. No torch."""
