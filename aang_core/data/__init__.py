"""Step 2: tasks, their readers, labels and splits, auxiliary tasks, and the audit."""
