"""Prompts and captions of the classes of the embedded synthetic corpus."""

# label: (prompt, captions)
TEXTS = {
    "DogBark": (
        "a dog bark",
        (
            "a dog barks",
            "a dog barking loudly",
            "a dog barks twice",
            "a small dog yaps nearby",
            "barking of a dog in a yard",
            "a dog barks and then stops",
        ),
    ),
    "Footstep": (
        "foot steps",
        (
            "footsteps on a hard floor",
            "someone walks past",
            "a person walking at a steady pace",
            "footsteps on gravel",
            "steps of shoes on a wooden floor",
            "somebody strolls along a path",
        ),
    ),
    "GunShot": (
        "gun shot",
        (
            "a gun is fired",
            "a loud gunshot rings out",
            "a shot from a rifle echoes",
            "a pistol shot followed by its echo",
            "gunfire in the distance",
            "someone fires a gun",
        ),
    ),
    "Keyboard": (
        "someone using keyboard",
        (
            "someone typing on a keyboard",
            "fast typing on a computer keyboard",
            "keys clicking as a person types",
            "a person types on a laptop",
            "clatter of a mechanical keyboard",
        ),
    ),
    "MovingMotorVehicle": (
        "a moving motor",
        (
            "a car drives past",
            "a motor vehicle moving along a road",
            "an engine hums as a vehicle passes by",
            "a truck engine idling",
            "a car accelerates",
            "a vehicle driving with a low engine rumble",
        ),
    ),
    "Rain": (
        "rain",
        (
            "rain is falling",
            "rain falls steadily on the ground",
            "heavy rain on a roof",
            "raindrops pattering on leaves",
            "a rain shower",
        ),
    ),
    "Sneeze_Cough": (
        "a person sneezing or coughing",
        (
            "a person coughs",
            "someone sneezes",
            "a man coughs twice",
            "a person coughing hard",
            "somebody sneezes loudly",
            "a short dry cough",
        ),
    ),
    "Bell": (
        "a bell ringing",
        (
            "a bell rings",
            "a church bell tolls",
            "a metal bell is struck",
            "ringing of a small bell",
            "a bell chimes and fades away",
        ),
    ),
    "Siren": (
        "a siren",
        (
            "a siren wails",
            "a police siren sounds",
            "an ambulance siren going up and down",
            "an emergency vehicle with its siren on",
            "a fire engine siren",
        ),
    ),
    "Birdsong": (
        "a bird singing",
        (
            "a bird sings",
            "birds chirping",
            "a songbird whistles a melody",
            "chirps and tweets of a small bird",
            "a bird is tweeting in a tree",
        ),
    ),
    "Thunder": (
        "thunder",
        (
            "thunder rumbles",
            "thunder rolls in the distance",
            "a deep rumble of thunder",
            "a thunderclap followed by a long rumble",
            "a thunderstorm is rumbling",
        ),
    ),
    "Wind": (
        "wind blowing",
        (
            "the wind blows",
            "wind howling",
            "strong gusts of wind",
            "wind whistles around a corner",
            "a breeze rises and falls",
        ),
    ),
    "ClockTick": (
        "a clock ticking",
        (
            "a clock ticks",
            "steady ticking of a clock",
            "tick tock of a wall clock",
            "a small clock ticking regularly",
            "a mechanical clock is ticking",
        ),
    ),
    "DoorKnock": (
        "a knock on a door",
        (
            "someone knocks on a door",
            "knocking on a wooden door",
            "several quick knocks at the door",
            "a person raps on a door",
            "a hand knocking on wood",
        ),
    ),
    "WaterDrip": (
        "water dripping",
        (
            "water drips",
            "drops of water fall into a basin",
            "a tap is dripping",
            "slow dripping of water",
            "water drops plop into a puddle",
        ),
    ),
    "Clapping": (
        "people clapping",
        (
            "people clap their hands",
            "someone is clapping",
            "a few people applaud",
            "hands clapping in rhythm",
            "a small group clapping",
        ),
    ),
    "Cricket": (
        "a cricket chirping",
        (
            "a cricket chirps",
            "crickets chirping at night",
            "steady chirps of an insect",
            "an insect chirping in the grass",
            "the high trill of a cricket",
        ),
    ),
    "Helicopter": (
        "a helicopter",
        (
            "a helicopter flies overhead",
            "helicopter blades chopping the air",
            "a helicopter hovering",
            "the thudding rotor of a helicopter",
            "a chopper passes",
        ),
    ),
    "GlassBreak": (
        "glass breaking",
        (
            "glass shatters",
            "a window breaks",
            "a glass falls and smashes",
            "shards of glass scatter on the floor",
            "a bottle is broken",
        ),
    ),
    "Saw": (
        "a hand saw",
        (
            "someone saws wood",
            "a hand saw cutting through a board",
            "sawing back and forth",
            "a person cutting wood with a saw",
            "strokes of a wood saw",
        ),
    ),
    "Frog": (
        "a frog croaking",
        (
            "a frog croaks",
            "croaking of a frog by a pond",
            "a frog calls again and again",
            "deep croaks of a frog",
            "a toad is croaking",
        ),
    ),
}
