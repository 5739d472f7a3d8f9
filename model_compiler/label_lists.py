"""Labels that many models share, for `--labels`."""

from __future__ import annotations

_COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase "
    "frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - "
    "wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair "
    "couch potted_plant bed - dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven "
    "toaster sink refrigerator - book clock vase scissors teddy_bear hair_drier toothbrush"
)
"""Lin et al. 2014, arXiv:1405.0312: the numbers 1 to 90, of which 80 are in use."""

COCO90 = tuple(
    f"unused-{number}" if name == "-" else name.replace("_", " ") for number, name in enumerate(_COCO.split(), start=1)
)
"""As TensorFlow's detectors number them, from 1 on."""

COCO80 = tuple(name for name in COCO90 if not name.startswith("unused-"))
"""Those in use, in the same order: as all others number them, from 0 on."""

LISTS = {"coco80": COCO80, "coco90": COCO90}
