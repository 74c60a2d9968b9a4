"""Scripts that run a workload in a peer. They need nothing of vllm-core: another Python runs them, by their path."""
