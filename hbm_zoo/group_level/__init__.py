"""What is known of a group given the hyperparameters: no priors, no frames.

A conjugate family writes the same symbols three times over: ``log_marginal`` (the likelihood
of a group with its own parameter integrated out, a PyTensor expression), ``conditional``
(Bayes' theorem for one group: the population after the group's data, a population of the same
kind) and the small expectations that the diagnostics need. Where there is no closed form the
same is had by numerical integration.
"""
