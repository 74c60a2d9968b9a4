"""``python -m vllm_core`` is ``vllm-core``."""

import sys

from vllm_core.cli.__main__ import main

sys.exit(main())
