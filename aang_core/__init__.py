"""aang: auxiliary training objectives, composed by plugins and weighted by meta-gradients."""

__version__ = "0.1.0.dev0"
