"""Every figure that the README prints comes from a script in this folder, run beside its rival:
python -m benchmarks.overhead, benchmarks.peak_memory, benchmarks.importtime (each has --help).
"""
