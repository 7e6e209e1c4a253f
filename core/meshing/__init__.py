"""From a scene to triangles: iso-surfaces, clean-up, charts and baked colours, for exporters, converters, geometries.

``surface`` finds the triangles of any geometry (``level`` chooses a density's level), ``cleanup`` makes them worth
keeping, ``unwrap`` lays them flat, ``texture`` paints them. Everything here is NumPy; nothing heavy is imported by
this module itself.
"""
