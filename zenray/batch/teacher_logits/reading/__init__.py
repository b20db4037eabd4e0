"""Records as a training job reads them."""
