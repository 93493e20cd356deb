"""What the flow comes to: groups, what they cost and matter, which of them can go, and why others can't."""
