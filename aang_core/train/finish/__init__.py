"""After the last step of the loop: final epochs, the guard against harm, the exported model."""
