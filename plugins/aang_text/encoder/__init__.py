"""The encoders of transformers: packed, probed, tuned, with their heads, and as an exported model."""
