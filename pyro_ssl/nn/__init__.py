"""Networks that know nothing of probability: layers, networks, backbones, augmentation."""

from pyro_ssl.nn.augmentation import Noise
from pyro_ssl.nn.backbones import Backbone
from pyro_ssl.nn.layers import Flat, SplitLinear
from pyro_ssl.nn.networks import MLP, ConvDecoder, ConvEncoder
from pyro_ssl.nn.norm import BatchNorm

__all__ = [
    "MLP",
    "Backbone",
    "BatchNorm",
    "ConvDecoder",
    "ConvEncoder",
    "Flat",
    "Noise",
    "SplitLinear",
]
