"""What orthogan costs, beside what others make: ``python -m benchmarks.weights``. Not part of the package."""
