"""The CPU twins on NumPy arrays.  Numba is loaded, and a kernel compiled, when the first of them is called."""
