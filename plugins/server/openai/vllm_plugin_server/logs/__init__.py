"""Log lines: one record a line, with the id of the request it belongs to. No prompt and no key unless asked for.

`formats` makes the lines, `setup` installs them, `observers` write of requests; `context` holds the request's id.
"""
