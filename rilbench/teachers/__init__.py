"""Teachers: the questions they are asked, and the saved collection of their responses."""
