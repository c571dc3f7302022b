"""Orient, normalise, crop and resample: views of a source, on torch."""
