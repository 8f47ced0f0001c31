"""Stage 1: texts and documents, files that are made from them once, and the sample tasks."""
