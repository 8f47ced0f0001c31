"""What people look at after a run: its story, the figures, and the page that holds them."""
