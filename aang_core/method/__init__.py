"""Steps 7 to 9: plan a step, give its losses, its gradients (`gradient/`), and the next weights (`weights/`)."""
