"""Closed forms of the group level, shared by models: no priors, no frames.

Each module writes one conjugate family three times over the same symbols:
``log_marginal`` (the likelihood of a group with its own parameter integrated
out, a PyTensor expression), ``conditional`` (Bayes' theorem for one group: the
population after the group's data, a population of the same kind) and the small
expectations that the diagnostics need.
"""
