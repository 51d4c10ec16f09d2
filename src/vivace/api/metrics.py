"""Ready-made metrics: (output, target) -> one score per sample, higher is better."""

from vivace.measure.metrics import accuracy, negative_cross_entropy, negative_mean_squared_error, top_k

__all__ = ["accuracy", "negative_cross_entropy", "negative_mean_squared_error", "top_k"]
