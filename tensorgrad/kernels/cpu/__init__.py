"""The CPU twins, on NumPy arrays: one module for each op, which loads Numba.

A kernel is compiled when it is first called and kept on disk."""
