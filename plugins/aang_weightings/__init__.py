"""Rules by which the weights of objectives learn. Begin in `hooks`, which lists them."""
