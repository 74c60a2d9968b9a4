"""Run in an environment: explain a checkpoint and generate a few tokens with it.

python generate.py JSON     [[folder, {argument of LLM: value}], ...]
                            prints [{"owners": {hook: [distribution, ...]}, "tokens": [...]}, ...]
"""

import contextlib
import io
import json
import sys

from vllm_core import LLM, SamplingParams
from vllm_core.cli.__main__ import main
from vllm_core.plugins.errors import NoOffer

PROMPT = [7 * i * i % 53 for i in range(20)]
TOKENS = 8


def explained(folder):
    """The choices that ``vllm-core explain FOLDER --json`` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["explain", folder, "--skip-tokenizer-init", "--json"])
    assert code == 0, f"vllm-core explain ended with {code}"
    return json.loads(out.getvalue())["choices"]


def generated(folder, arguments):
    params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    with LLM(folder, skip_tokenizer_init=True, **arguments) as llm:
        (output,) = llm.generate([{"prompt_token_ids": PROMPT}], params, use_tqdm=False)
        chosen = [(decision.hook, decision.provided.distribution) for decision in llm.built.decisions]
    assert not output.error, output.error
    owners = {}
    for hook, distribution in chosen:
        owners.setdefault(hook, set()).add(distribution)
    return {"owners": {h: sorted(names) for h, names in owners.items()}, "tokens": output.outputs[0].token_ids}


result = []
for folder, arguments in json.loads(sys.argv[1]):
    choices = explained(folder)
    assert choices, "nothing was chosen"
    try:
        result.append(generated(folder, arguments))
    except NoOffer as error:
        result.append({"refused": str(error)})
print(json.dumps(result))
