"""A machine with two CUDA devices, played by the CPU: its driver, and the array libraries that are served on one.

Memory is NumPy's, and the kernels run in the emulators.  The libraries have what the backends and the tests use of
them, with the names, signatures and manners of the originals: CuPy's arrays refuse an implicit conversion and have a
device each, torch's tensors export DLPack on the current device alone, JAX's are of the module `jaxlib`, a stream that
captures runs nothing, a thread has no context before it has called the runtime.  What is left untested is what only a
device can answer.
"""

from tests.fake_cuda.machine import Machine

__all__ = ["Machine"]
