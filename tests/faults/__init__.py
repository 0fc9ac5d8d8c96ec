"""The harness that damages runs; ``python -m tests.faults``."""

import os

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as the command line does before torch is imported
