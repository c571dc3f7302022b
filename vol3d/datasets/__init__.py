"""What there is to learn from: cases, layouts, splits, the plan."""
