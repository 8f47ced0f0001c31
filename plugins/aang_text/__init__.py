"""Built-in text primitives and the Hugging Face encoders; they enter by the public door, as any plugin."""
