"""Put one question of each hook to the culprit and to nobody else: ``python ask.py FAULT HOOK ...``.

Prints {hook: what became of it}, and what the process had to say on standard error.
"""

import json
import os
import sys
from pathlib import Path

from vllm_core.plugins.ask import ask
from vllm_core.plugins.catalog import load_catalog
from vllm_core.plugins.decision import Question
from vllm_core.plugins.errors import PluginError
from vllm_core.plugins.policy import Policy

fault, *hooks = sys.argv[1:]
order = Path(os.environ["CULPRIT"])
order.write_text("")
catalog = load_catalog(Policy(allow=["culprit"], import_timeout=30, answer_timeout=0.2))
said = {}
for hook in hooks:
    order.write_text(f"ask:{hook}:{fault}")
    try:
        (answer,) = [a for a in ask(catalog, Question(hook, object())) if a.plugin == "culprit"]
        said[hook] = answer.refusal or ("offer" if answer.offer else "none")
    except PluginError as error:
        said[hook] = str(error)
print(json.dumps(said), flush=True)
os._exit(0)  # calls that hang are still there
