"""Kernels: one contract each, several backends.

``hash_grid`` (points to features), ``marching`` (rays to samples), ``compositing`` (samples to pixels) and
``occupancy`` (where marching may skip). :mod:`core.kernels.dispatch` says which backend runs and why;
:mod:`core.kernels.bench` says how fast. Nothing heavy is imported here.
"""
