"""What the server counts and measures, and how Prometheus gets it. The figures' names are vLLM's.

`observed` watches requests of the engine, `exchange` those of HTTP; `board` is where a server's figures hang together,
`routes` are ``/metrics`` and ``/load``. With several server processes `shared` adds theirs up.
"""
