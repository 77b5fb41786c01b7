"""What a trained objective says of data: class probabilities, bounds, samples."""
