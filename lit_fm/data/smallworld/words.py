"""The vocabulary of the little world: who lives there, what they own, and what can be said of it."""

PEOPLE = (
    "Ada Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor Anna Carlos "
    "Diana Erik Fatima George Hana Ivan Julia Karim Lena Marco Nina Omar Petra Ruth Simon Tara Yusuf Zoe Alice Bruno "
    "Daniel Elena Frank Greta Hugo Ines Jonas Laura Martin Nora Oscar Pia Robert Sara Thomas Vera Walter Yara"
).split()
PET_NAMES = (
    "Misty Rex Bella Max Luna Oscar Coco Felix Ruby Simba Daisy Rocky Molly Toby Pepper Shadow Ginger Buddy Cleo Jasper "
    "Nala Bruno Lola Milo Penny Hazel Oreo Poppy Rusty Smokey Snowy Spot Tiger Willow Ziggy Biscuit Bonnie Charlie Domino "
    "Fudge Honey Loki Maple Nutmeg Olive Pebble Pumpkin Scout Sunny Teddy Toffee Waffle"
).split()
ANIMALS = "cat dog rabbit parrot hamster turtle pony goat canary goldfish".split()
TOWNS = (
    "Ashford Brill Corby Dunmore Elton Farley Garton Hale Ilford Keld Linton Morley Norwell Oakham Penrith Rye".split()
)
PLACES = "park market station library school garden harbour bakery clinic museum river bridge castle farm".split()
JOBS = "teacher baker doctor nurse farmer driver painter lawyer gardener singer pilot carpenter writer cook".split()
COLOURS = "red blue green yellow black white brown grey orange purple".split()
FOODS = "bread cheese soup apples rice fish honey milk carrots eggs pears beans butter grapes cake plums".split()
THINGS = "book lamp key hat umbrella bag letter map bell clock ball box coat cup chair ring drum basket".split()
PRODUCTS = (
    "kettle phone camera lamp jacket tent bicycle guitar blender headset watch keyboard chair backpack heater radio "
    "printer toaster pillow suitcase mattress drill torch scooter telescope notebook"
).split()
VENUES = "hotel restaurant cafe cinema clinic bakery museum hostel theatre gym bookshop campsite".split()
PARTS = {
    "product": "battery handle screen cover colour price manual box switch shape strap cable".split(),
    "venue": "staff food room view price music location service garden seats menu entrance".split(),
}
GOOD = "great lovely excellent wonderful superb perfect brilliant pleasant reliable fantastic delightful solid".split()
BAD = "awful terrible poor dreadful horrible useless disappointing broken unpleasant nasty shabby weak".split()
BODY = "eye ear nose mouth tongue hand head foot arm leg back knee neck throat".split()
SUPPLIES = "tablet capsule teaspoon drop puff suppository bottle bandage needle inhaler mask pill glove powder".split()
AILMENTS = "pain fever cough itching nausea headache cold rash hunger thirst".split()
PAPERS = "contract notice lease licence claim clause payment tenant landlord court party agreement".split()
SURNAMES = (
    "Archer Bishop Carter Dalton Fisher Gibson Hunter Irving Jordan Keller Lawson Mercer Norris Palmer Quinn Rivers Sutton "
    "Turner Vance Walker"
).split() + TOWNS[:10]  # some families are called like towns: only the sentence tells
HOUSES = "Bank University Hospital Times United Motors Theatre Airways".split()
ERRANDS = (
    "buy bread,call the doctor,feed the cat,water the garden,post the letter,clean the kitchen,pay the rent,take the bus,"
    "wash the car,read the contract,close the windows,bring an umbrella,return the book,walk the dog"
).split(",")
WEATHER = "sunny rainy windy cold warm foggy snowy stormy cloudy hot".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SPANS = "day week month year hour minute night".split()
MOMENTS = ["morning", "afternoon", "evening"]
NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
FEELINGS = "happy sad tired proud angry calm worried hungry thirsty excited".split()
OPPOSITES = (
    "big small hot cold fast slow happy sad old new open closed full empty high low light dark early late clean dirty "
    "strong weak rich poor wet dry loud quiet hard soft long short near far first last left right up down good bad"
).split()
KINDS = {
    "animal": ANIMALS + "horse sheep cow duck fox bear owl mouse".split(),
    "food": FOODS,
    "job": JOBS,
    "colour": COLOURS,
    "day": DAYS,
    "town": TOWNS,
}


def count(n: int, noun: str, plural: str | None = None) -> str:
    """`count(2, "tablet")` is `two tablets`."""
    return f"{NUMBERS[n]} {noun if n == 1 else plural or noun + 's'}"


def article(noun: str) -> str:
    """The noun with `a` or `an` before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
