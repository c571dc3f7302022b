"""What a mask is made of: components, distances, 2x2x2 cubes."""
