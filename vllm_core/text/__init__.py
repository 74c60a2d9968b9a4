"""What parsers of generated text are made of. Public to plugins; imports no torch.

pieces.py      text that comes in pieces, read by a generator that waits where it needs more
json.py     one JSON value out of such text: where it ends, and what of it is certain
tools.py       the base of tool parsers: content, calls, and a call written as a JSON object
"""
