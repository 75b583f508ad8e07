"""Where models are made: the only room that may import torch, transformers, lightning or another training library."""
