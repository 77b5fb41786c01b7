"""Networks that know nothing of probability.

Layers, networks, backbones, augmentation and the hooks for random weights.
"""
