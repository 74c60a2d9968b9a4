"""What ``vllm-core plugins new`` is made of: kinds, names, rendering, and what a checkpoint tells about a model."""
