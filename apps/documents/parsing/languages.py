"""How likely a text is in the language that it fits best: tells in which of two encodings it was written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

#: Letters of each language by how often it writes them, counted in Django's translations: the first group makes up 1/8
#: of a text each, every further one half as much ("-": none). Romanian has the cedilla that its code pages have.
_LETTERS = {
    "ar": "ال يمترنو ةدحأعقبس كفهجخصإ ذىطثغّ ضشئًءز آظُ ـِ",
    "be": "а ніел ысркятпдцьвмзоу бўэчг шйх жюёф ґ - - - и",
    "bg": "аеи тонрс влдпмкз бъяуч гйцж шфщ хю",
    "ca": "ea sirtnoluc dmp gvb fhqàóx yéjè íïçú zò kü w",
    "cs": "e onatsl updrikvmíyb áhzjcžě éčšřý ůfg úw xň ď ó",
    "da": "e trnidalsg komuvf bh pæjåy øc w - éz x",
    "de": "en itsra dlhugocmb fwzk püvä jö y ß qx",
    "el": "αε τιονρ μσπκηίλυές δάγήόχθω ύφβ ώξ ζ ψ - - ϊ",
    "en": "et aosnirl duhmc pbygfwv - kj xq z",
    "es": "eao rsnitcld um pbgv hfóá yqñíjúz éx k - w",
    "et": "eai stuln okdmrv äpgjhb õü f - c öy ž",
    "fa": "ای ردنتمهوب کشلس فزعخقگ حجطذصپ غژآچٔ ضثئ ظءً - أُِ",
    "fi": "ati ensloäuk mvr ypjh d ög b fc - zw",
    "fr": "es itarnuol dcmp évf bhgqzj èx yàê - kîû - ôw",
    "he": "יו תהלארשמ בנסחדםעקפ כןטג זצך - ףץ - ּ ִֶ",
    "hr": "iae onrstj kulpdmv zb gcšč žh ćfđ - y w",
    "hu": "e atlsnz rokmiáégd bjvyhuóp öőcíf üúű - - - w",
    "is": "a irentlsuð kgmfv doyháíþ bójúpö æé ýc - x",
    "it": "ieao ntrsl cdumpg vz fbh qwè - kyùì òjà é",
    "lt": "ia stenrou kldpm vjųgšb žyėįą fūcč ęz - h",
    "lv": "ai stern uolkmvādpjī ēzbšg cū fļņ - hyģž ķ - č",
    "mk": "аие онтрс дквлмп зјбуг шцч жњф ќ - х ѓџ",
    "nb": "e rtnilsad okgmu vpfb hjåy ø æ c w z",
    "nl": "e natirods gluvm wcbhjkpz f - y - xq - ï",
    "pl": "a ieontswz rypkudclmj błg ężąhśćó fń - ź - v",
    "pt": "aeo srintd muclp vfghã báçq jzx õêéíú kyw ó àâ",
    "ro": "eai trnuclo sădmp ţgvf bzşî h âjx k w y",
    "ru": "ео иантслвр дпмкьуы бйзяч жгшц фюхэщ ъё",
    "sk": "e aontis rldvpkmuá byhzcjí žťčéšúý fľg óň ôďx ä w",
    "sl": "eai notrsv ljpdmkb zučgš hc ž f - - y",
    "sq": "e ëitarsnjh mouldkp fgv bzyq c - ç - x",
    "sr": "aei ontrs jdlkumvp zb gcščžf hć - đ y",
    "sv": "eta nrlisd okgmä vfubpö håjcy - - wx z",
    "th": "- า่นอ กเ้รลมีังยหด สวบทตไคปิจูใืข์ุช แะพ็ผถำณซ โฟึธ ศษภญฤ ฉ ฮฎ",
    "tr": "aie nlr tsdıkmuoyb zgçüşğc phföv - - - j w",
    "uk": "- аноеитів рслкдмупья збйчг цжшє хщюфї",
    "vi": "nh tcgi ađuml káyưbàporậsạó ôdvợeếêảxãộểệờốẩớọ ịấỷủữqổửỉâềặ ắựăìíơùứụúầẽằfỗ ýwẫỏồở éũòừ jẵõ",
}
_NOT_LATIN = ("ar", "be", "bg", "el", "fa", "he", "mk", "ru", "th", "uk")
_CEDILLA = str.maketrans({"ș": "ş", "ț": "ţ", "\u0307": None})  # lower() leaves the dot of the Turkish capital
_COMMON_SIGNS = frozenset("‘’“”„«»‹›–—…•€£§°©®¿¡\u00a0\u00ad")
_MISPLACED = frozenset("€£§°¿¡")
_BEHIND_LETTER = re.compile(rf"(?<=[^\W\d_])[{''.join(_MISPLACED)}]")
_UNKNOWN, _SIGN, _RARE_SIGN = 17, 6, 20  # bits: of a letter that the language has not, and of other signs


def bits(text: str) -> tuple[int, int]:
    """(information in a text's letters and in its signs outside ASCII: less the more it is like a language; how many
    these are)."""
    counted: Counter[str] = Counter()
    for char, times in Counter(unicodedata.normalize("NFC", text)).items():  # each character once is far less to lower
        for lower in char.lower().translate(_CEDILLA):
            counted[lower] += times
    behind = len(_BEHIND_LETTER.findall(text)) if counted.keys() & _MISPLACED else 0
    signs, letters = [(_RARE_SIGN - _SIGN, behind)], []
    for char, times in counted.items():
        if unicodedata.category(char)[0] in "LM":
            letters.append((char, times))
        elif char > "\x7f":
            signs.append((_SIGN if char in _COMMON_SIGNS else _RARE_SIGN, times))
    least = min(sum(times * known.get(char, _UNKNOWN) for char, times in letters) for known in _tables())
    count = sum(times for _, times in letters) + sum(times for _, times in signs[1:])
    return least + sum(each * times for each, times in signs), count


@lru_cache(1)
def _tables() -> list[dict[str, int]]:
    """Bits of each letter, a table per language. Texts in other scripts may have English words among them."""
    tables = {
        language: {char: cost for cost, group in enumerate(groups.split(" "), start=3) for char in group if char != "-"}
        for language, groups in _LETTERS.items()
    }
    english = {char: cost + 1 for char, cost in tables["en"].items()}
    return [english | table if language in _NOT_LATIN else table for language, table in tables.items()]
