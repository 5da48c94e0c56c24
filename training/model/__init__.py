"""MV-VDM: Stable Diffusion 1.5's UNet with multi-view attention (MVDream), motion modules (AnimateDiff), image tokens
(IP-Adapter) and the two parts that Animate3D adds to them.

One set of weights takes any number of views and frames and any size of picture. Names of parameters are the published
ones, so every parent's checkpoint loads: `training.checkpoints`.
"""
