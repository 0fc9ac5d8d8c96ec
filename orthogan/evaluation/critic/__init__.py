"""Metrics of trained critics and classifiers: neural divergence, Lipschitz constants, complexity."""
