"""Figures of kernels: ``python -m vllm_kernels.bench``. Cases are in modules ``cases_<topic>``."""
