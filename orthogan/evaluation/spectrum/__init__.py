"""The singular values of every layer of a net."""
