"""OpenAI's Responses API: items in, items and events out, and a bounded store between calls."""
