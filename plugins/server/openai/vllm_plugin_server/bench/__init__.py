"""``vllm-core bench serve``: load for any server of OpenAI's API, and what its answers took."""
