"""Small models, guides and data that several test files use."""
