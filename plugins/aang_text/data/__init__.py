"""Stage 1: texts, the documents they stand in, what is made from them once, and the sample tasks."""
