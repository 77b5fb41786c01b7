"""Labels by a person: the question, the page or terminal that asks it, and the labels on disk."""
