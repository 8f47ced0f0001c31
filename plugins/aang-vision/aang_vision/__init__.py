"""Images as sequences of patches: an encoder, a task, primitives and spaces for aang."""
