"""How good a mask is: overlap, surface, components."""
