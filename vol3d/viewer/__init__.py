"""Error maps, figures and the interactive window."""
