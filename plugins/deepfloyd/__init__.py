"""DeepFloyd IF, stage I."""
