"""Training: `fit`, its batches, and checkpoints from which a run resumes to the same bits."""
