"""Training on selected examples: the ways to do it (`selections`), and whole experiments."""
