"""Numbers and pictures about predictions: metrics, calibration, out-of-distribution data, plots."""
