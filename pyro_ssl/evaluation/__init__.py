"""Numbers and pictures about predictions: metrics, calibration, foreign data, corruptions, attacks, plots."""
