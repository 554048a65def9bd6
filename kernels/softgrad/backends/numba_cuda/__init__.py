"""The `numba_cuda` backend: Numba CUDA kernels in Python, step by step those of CUDA C++, for users without CuPy.

`softmax`, `products`, `cross_entropy`, … hold the kernels, `machine` what they ask of the device; `runtime` compiles
and launches them on arrays of Numba, CuPy and torch.  Which kernel, on which team of threads, with which arguments is
decided in `softgrad.backends.cuda`, which both GPU backends share.  `backend` is what dispatch imports: it needs a
device.
"""
