"""English phrases and their French, with agreement in gender and number."""

from random import Random

# English, its plural, French, its plural, gender. All begin with a consonant, so that no article is cut short.
_NOUNS = [
    tuple(line.split())
    for line in (
        "key keys clé clés f,book books livre livres m,hat hats chapeau chapeaux m,bag bags sac sacs m,"
        "letter letters lettre lettres f,table tables table tables f,house houses maison maisons f,cat cats chat chats m,"
        "dog dogs chien chiens m,apple apples pomme pommes f,car cars voiture voitures f,room rooms chambre chambres f,"
        "garden gardens jardin jardins m,door doors porte portes f,knife knives couteau couteaux m,cup cups tasse tasses f,"
        "shirt shirts chemise chemises f,ticket tickets billet billets m,train trains train trains m,"
        "street streets rue rues f,flower flowers fleur fleurs f,box boxes boîte boîtes f,glass glasses verre verres m,"
        "coat coats manteau manteaux m,bridge bridges pont ponts m,spoon spoons cuillère cuillères f,"
        "photo photos photo photos f,chair chairs chaise chaises f"
    ).split(",")
]
# English, masculine, feminine.
_BEFORE = [("small", "petit", "petite"), ("big", "grand", "grande"), ("pretty", "joli", "jolie")]
_BEFORE += [("good", "bon", "bonne"), ("bad", "mauvais", "mauvaise"), ("old", "vieux", "vieille")]
_AFTER = [
    ("red", "rouge", "rouge"),
    ("green", "vert", "verte"),
    ("black", "noir", "noire"),
    ("white", "blanc", "blanche"),
]
_AFTER += [
    ("blue", "bleu", "bleue"),
    ("yellow", "jaune", "jaune"),
    ("grey", "gris", "grise"),
    ("heavy", "lourd", "lourde"),
]
_AFTER += [("round", "rond", "ronde"), ("clean", "propre", "propre")]
# English, masculine, feminine; or English, plural.
_ONE = [
    ("the", "le", "la"),
    ("a", "un", "une"),
    ("my", "mon", "ma"),
    ("this", "ce", "cette"),
    ("your", "votre", "votre"),
]
_ONE += [("our", "notre", "notre")]
_MANY = [("the", "les"), ("my", "mes"), ("these", "ces"), ("your", "vos"), ("our", "nos"), ("two", "deux")]
_MANY += [("three", "trois"), ("four", "quatre"), ("five", "cinq"), ("six", "six"), ("ten", "dix")]
# English and French of one thing, and of several.
_FRAMES = [
    ("Where is {}?", "Où est {} ?", "Where are {}?", "Où sont {} ?"),
    ("I see {}.", "Je vois {}."),
    ("I am looking for {}.", "Je cherche {}."),
    ("We have {}.", "Nous avons {}."),
    ("I would like {}, please.", "Je voudrais {}, s'il vous plaît."),
    ("Here is {}.", "Voici {}.", "Here are {}.", "Voici {}."),
    ("Do you have {}?", "Avez-vous {} ?"),
    ("How much is {}?", "Combien coûte {} ?", "How much are {}?", "Combien coûtent {} ?"),
    ("I like {}.", "J'aime {}."),
    ("Thank you for {}.", "Merci pour {}."),
]


def _agree(forms: tuple[str, str, str], feminine: bool, many: bool) -> str:
    word = forms[2] if feminine else forms[1]
    return word + "s" if many and word[-1] not in "sx" else word


def phrase(rng: Random) -> tuple[str, str]:
    """A phrase in English and in French."""
    one, several, un, des, gender = rng.choice(_NOUNS)
    feminine, many = gender == "f", rng.random() < 0.45
    before = rng.choice(_BEFORE) if rng.random() < 0.45 else None
    after = rng.choice(_AFTER) if rng.random() < 0.55 else None
    which = rng.choice(_MANY if many else _ONE)
    english = [which[0], *(adjective[0] for adjective in (before, after) if adjective), several if many else one]
    french = [which[-1] if many or feminine else which[1]]
    french += [_agree(before, feminine, many)] if before else []
    french += [des if many else un]
    french += [_agree(after, feminine, many)] if after else []
    if english[0] == "a" and english[1][0] in "aeiou":
        english[0] = "an"
    if rng.random() < 0.15:
        said = rng.choice(_AFTER)
        verb, est = ("are", "sont") if many else ("is", "est")
        texts = f"{' '.join(english)} {verb} {said[0]}.", f"{' '.join(french)} {est} {_agree(said, feminine, many)}."
        return texts[0][0].upper() + texts[0][1:], texts[1][0].upper() + texts[1][1:]
    frame = rng.choice(_FRAMES)
    asked, said_in_french = frame[-2:] if many else frame[:2]
    return asked.format(" ".join(english)), said_in_french.format(" ".join(french))
