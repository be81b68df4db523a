"""ALFWorld: tidy a home by text commands, played in the packages' own engine on generated or official games."""

from gentax.core.env import Domain
from gentax.domains.alfworld.levels import DEFAULT, LEVELS

DOMAIN = Domain(
    name="alfworld",
    entry="gentax.domains.alfworld.env:AlfWorld",
    about="Find things in a home, clean, heat or cool them, put them away, look at them in light (ALFWorld).",
    rules=(
        "Do the task in a home. Most things are out of sight: go to a place to see what is on it, open what is closed. "
        "You can carry one thing. Commands: go to X, open X, close X, take Y from X, move Y to X, clean Y with X, "
        "heat Y with X, cool Y with X, use Y, examine X, look, inventory. A sinkbasin cleans, a microwave heats, a "
        "fridge cools, a lamp is used while you hold what you look at. X and Y are names with numbers, such as desk 1."
    ),
    levels=LEVELS,
    default_level=DEFAULT,
    licence=(
        "MIT (alfworld, textworld); they bring jericho (GPL-2) and fast-downward-textworld (GPL-3), which load into "
        "the same process"
    ),
    origin=(
        "the engine, rules, wording and 120 floor plans of the alfworld package 0.4 (arXiv 2010.03768) on gentax's own "
        "generated games; level official: the published games, where a user has them"
    ),
    requires=("alfworld", "textworld", "fast_downward"),
    enable="pip install 'gentax[alfworld]' (has GPL parts, and compiles for minutes: needs gcc, g++ and make)",
    open_levels=True,
)
