"""One small graph or more for every row of the dictionary."""
