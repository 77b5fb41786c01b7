"""Which labels to ask for: acquisition functions, the learner that uses them, and a page for a person."""
