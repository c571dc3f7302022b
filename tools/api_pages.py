"""The pages of the Python interface: ``python tools/api_pages.py FOLDER``. A warning is an error."""

import sys
import warnings
from pathlib import Path

PAGES = ("vol3d", "vol3d.errors", "vol3d.shapes", "vol3d.volume.labels", "vol3d.volume.source")


def main(folder: Path) -> None:
    """Write a page for the public names, and one for each module whose names they speak of."""
    import pdoc

    import vol3d

    vars(vol3d).update({name: getattr(vol3d, name) for name in vol3d.__all__})  # resolved, so that pdoc sees them
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*PAGES, r"!vol3d\.(?!(errors|shapes|volume)$|volume\.(labels|source)$)", output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
