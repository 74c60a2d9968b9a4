"""The core's own attention backend passes the kit, with nothing that it cannot do."""

from vllm_core.testing import AttentionConformance


class TestReference(AttentionConformance):
    backend = "reference"
