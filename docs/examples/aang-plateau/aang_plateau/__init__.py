"""A plugin with a callback that ends a training when the end-task's loss has stopped falling."""
