"""Fast paths beside their slow references: Triton kernels for CUDA, and the registry that says which are used and why."""
