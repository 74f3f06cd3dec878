"""What people call the classes of data sets that number them."""

from merge_core.data.photographs import GRID_COLUMNS, GRID_ROWS

_DIGITS = tuple(str(digit) for digit in range(10))
_ANGLES = (0, 30, 60, 90, 120, 150)
_ROWS, _COLUMNS = ("top", "bottom"), ("left", "middle", "right")
assert (len(_ROWS), len(_COLUMNS)) == (GRID_ROWS, GRID_COLUMNS)

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "textures": (
        *(f"{angle}°" for angle in _ANGLES),
        *(f"{angle}° and {(angle + 60) % 180}°" for angle in _ANGLES),
    ),
    "photos": tuple(
        f"{photograph}, {row} {column}"
        for photograph in ("temple", "flower")
        for row in _ROWS
        for column in _COLUMNS
    ),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
    "cifar100": (
        "apple", "aquarium fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
        "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
        "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
        "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak tree", "orange", "orchid", "otter", "palm tree", "pear", "pickup truck", "pine tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
        "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
        "spider", "squirrel", "streetcar", "sunflower", "sweet pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
        "wardrobe", "whale", "willow tree", "wolf", "woman", "worm",
    ),
}  # fmt: skip
"""Data set → the names of its classes, by number."""

BREEDS = {
    "n02086240": "Shih-Tzu",
    "n02087394": "Rhodesian ridgeback",
    "n02088364": "beagle",
    "n02089973": "English foxhound",
    "n02093754": "border terrier",
    "n02096294": "Australian terrier",
    "n02099601": "golden retriever",
    "n02105641": "Old English sheepdog",
    "n02111889": "Samoyed",
    "n02115641": "dingo",
}
"""Folder of Imagewoof → the breed of its dogs."""
