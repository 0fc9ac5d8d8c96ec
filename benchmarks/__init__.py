"""Benchmarks of orthogan and other libraries: ``python -m benchmarks.weights``. Not part of the package."""
