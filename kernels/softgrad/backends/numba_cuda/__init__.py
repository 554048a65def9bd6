"""The `numba_cuda` backend: the kernels of CUDA C++ as Numba CUDA kernels in Python, step by step."""
