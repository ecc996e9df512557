"""What the pages of a run and of an experiment have in common: the frame, and how drawings look."""
