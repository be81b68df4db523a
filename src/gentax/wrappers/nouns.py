"""What `Rename` renames in each domain: its nouns (lower case, singular) and its signs."""

from __future__ import annotations

NOUNS: dict[str, tuple[str, ...]] = {
    "sokoban": ("wall", "target", "box", "room"),
    "sciworld": (
        "kitchen", "bathroom", "hallway", "bedroom", "workshop", "greenhouse", "foundry", "studio", "room", "door",
        "table", "chair", "counter", "cupboard", "drawer", "fridge", "freezer", "oven", "stove", "sink", "closet",
        "shelf", "desk", "bed", "bathtub", "toilet", "box", "jar", "cup", "bowl", "pot", "bucket", "picture",
        "painting", "thermometer", "stopwatch", "lighter", "axe", "shovel", "fountain", "ground", "substance", "animal",
        "plant", "egg", "water", "soap", "wood", "agent", "apple", "banana", "orange", "potato", "tree", "seed", "soil",
    ),
    "alfworld": (
        "armchair", "bathtubbasin", "bed", "cabinet", "cart", "coffeemachine", "coffeetable", "countertop", "desk",
        "diningtable", "drawer", "dresser", "fridge", "garbagecan", "microwave", "ottoman", "safe", "shelf",
        "sidetable", "sinkbasin", "sofa", "stoveburner", "toilet", "desklamp", "floorlamp", "alarmclock", "apple",
        "baseballbat", "basketball", "book", "bowl", "box", "bread", "candle", "cd", "cellphone", "cloth", "creditcard",
        "cup", "dishsponge", "egg", "fork", "handtowel", "kettle", "keychain", "knife", "ladle", "laptop", "lettuce",
        "mug", "newspaper", "pan", "pen", "pencil", "pillow", "plate", "plunger", "pot", "potato", "remotecontrol",
        "soapbar", "soapbottle", "spatula", "spoon", "statue", "tissuebox", "tomato", "towel", "vase", "watch",
    ),
    "crafting": (
        "log", "clay", "reed", "stone", "fibre", "resin", "sand", "ore", "moss", "bark", "flint", "wool", "plank",
        "rod", "rope", "brick", "cord", "frame", "hook", "panel", "wheel", "mallet", "basket", "lantern", "ladder",
        "bell", "shield", "cart",
    ),
    "webshop": (
        "shirt", "sweater", "blouse", "vest", "jacket", "coat", "trousers", "socks", "skirt", "sneakers", "boots",
        "sandals", "slippers", "chair", "sofa", "bench", "stool", "desk", "table", "cabinet", "wardrobe", "bookcase",
        "shampoo", "lotion", "soap", "lipstick", "headphones", "speaker", "keyboard", "tablet", "charger", "battery",
        "pan", "kettle", "mug", "bowl", "blender", "toaster", "mixer", "coffee", "tea", "cookies", "crackers", "honey",
        "jam", "tent", "hammock", "lantern", "backpack", "wallet", "suitcase", "hose", "shovel",
    ),
    "babyai": ("key", "ball", "box", "door", "wall", "room"),
    "twx": (
        "kitchen", "pantry", "corridor", "bathroom", "bedroom", "garden", "backyard", "street", "door", "fridge",
        "oven", "stove", "counter", "table", "cupboard", "shelf", "sink", "knife", "cookbook", "recipe", "meal", "coin",
        "map", "box", "chamber", "parlor", "room", "toaster", "chair",
    ),
}  # fmt: skip

SIGNS: dict[str, str] = {"sokoban": "#_.$*@+"}
FRESH = "%^&=!~?:|<>/"  # signs to put in their place
