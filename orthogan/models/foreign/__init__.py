"""Other people's checkpoints: one layout per file, which recognizes its files and describes them as models of ours."""
