"""How well did that work? Metrics on runs."""

from mainspring.measure.metrics import Metric, kl_divergence, logit_difference, probability, recovered

__all__ = ["Metric", "kl_divergence", "logit_difference", "probability", "recovered"]
