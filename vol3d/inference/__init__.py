"""Windows, blending, mirrors: from a source to probability slabs."""
