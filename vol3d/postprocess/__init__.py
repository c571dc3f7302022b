"""Named steps that turn probabilities into masks and mend them."""
