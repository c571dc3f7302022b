"""WHERE things are: affines, boxes, window grids and blending curves. NumPy only."""
