"""Everything behind the CrossKEY module of 3D Slicer.

In a folder of its own because Slicer takes every Python file beside `CrossKEY.py` for a module.
"""
