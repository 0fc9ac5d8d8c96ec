"""Trained critics and what they measure: neural divergence, Lipschitz constants, complexity."""
