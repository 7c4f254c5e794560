"""Numbers of lists in the letters, figures and signs that office programs number with."""

from __future__ import annotations

MOST_ROMAN = 10_000  # an M for each thousand
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl")),
    *((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_ALPHABETS = {
    "russianLower": "абвгдежзиклмнопрстуфхцчшщыэюя",
    "hebrew2": "אבגדהוזחטיכלמנסעפצקרשת",
    "arabicAlpha": "أبتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "aiueoFullWidth": "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワヲン",
    "lowerLetter": "abcdefghijklmnopqrstuvwxyz",
}
_HAN = "〇一二三四五六七八九"


def formatted(number: int, form: str) -> str:
    """A number in one of the formats of ISO/IEC 29500-1, 17.18.59; in figures where it is one of the rarer."""
    if form in ("upperLetter", "upperRoman", "russianUpper"):
        return formatted(number, "lower" + form[5:] if form != "russianUpper" else "russianLower").upper()
    if form in ("none", "bullet") or number < 0:
        return ""
    if form in _ALPHABETS and number:
        letters = _ALPHABETS[form]
        return letters[(number - 1) % len(letters)] * min(1 + (number - 1) // len(letters), 20)
    if form == "lowerRoman" and number < MOST_ROMAN:
        return _roman(number)
    if form == "decimalZero":
        return f"{number:02}"
    if form == "ordinal":
        return f"{number}{'th' if 10 <= number % 100 <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
    if form in ("decimalEnclosedCircle", "decimalEnclosedCircleChinese") and 1 <= number <= 20:
        return chr(0x2460 + number - 1)
    if form == "ideographDigital" or form == "japaneseDigitalTenThousand":
        return "".join(_HAN[int(digit)] for digit in str(number))
    if form.startswith(("chineseCounting", "japaneseCounting", "taiwaneseCounting")) and 1 <= number < 100:
        tens, ones = divmod(number, 10)
        return (_HAN[tens] if tens > 1 else "") + ("十" if tens else "") + (_HAN[ones] if ones else "")
    return str(number)


def _roman(number: int) -> str:
    letters = []
    for value, letter in _ROMAN:
        times, number = divmod(number, value)
        letters.append(letter * times)
    return "".join(letters)
