"""vol3d: native 3D volumetric segmentation.

The floor plan, top to bottom; a room imports only from the floors below it, and rooms on one line
do not meet:

    commands/                                                 argv in, exit code out
    tasks/                                                    what a user asks for, one function each
    config/                                                   strict YAML and section.key=value
    training/ viewer/ phantom/                                the loop that learns; pictures; synthetic kidneys
    datasets/ patches/ network/ inference/ postprocess/ metrics/
        cases and the plan; cubes to learn from; U-Nets; windows and blending; steps on masks; scores
    preprocess/                                               orient, normalise, crop, resample: views
    regions/                                                  components, distances, 2x2x2 cubes
    files/                                                    the only room that opens files
    volume/                                                   sources, sinks, the label schema
    geometry/                                                 affines, boxes, grids, blending curves
    shapes.py errors.py version.py
"""
