"""What the model is asked, and in which words."""
