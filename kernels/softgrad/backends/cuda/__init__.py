"""What the GPU backends share: the CUDA C++ sources, and the table of which kernel serves which row.

It is not a backend itself, and imports no GPU library.
"""
