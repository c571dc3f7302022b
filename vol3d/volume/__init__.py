"""WHAT a volume is: sources and sinks of voxels, an array with its place, the label schema."""
