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
#: East Asian languages: the national standard, whose first level are the common characters, and bits of one of these.
_STANDARDS = {"ja": ("euc_jp", 12), "ko": ("euc_kr", 11), "zh_Hans": ("gb2312", 11), "zh_Hant": ("big5", 11)}
#: Their hundred most frequent characters in the same translations; Korean has what laughs and cries besides.
_FREQUENT = {
    "ja": (
        "語月日選択数入力除変削値効字更時用正認以文下定間有要必存示無使理追加表名関確可連目付個作在保曜操証設番形"
        "管能内合一不小整式全新度限上今送信前込複行切明持列見分利未指報現空実場対最中英含件成後情権登録修"
    ),
    "ko": (
        "ㅋㅎㅠㅜ다이니하어습를지가요시수을입자의세번는사비일월로아호에리제해밀인용한기정트합은스력없드선되주택서"
        "오필경값개바않보있문그삭할모변페된터화르나크관성메른체야올확고플유도브대으들간식션템위소마형었릿설만전재"
    ),
    "zh_Hans": (
        "的语个一有码月用密是字选数不你期入输在除请以删可确对该中点户值日改文保模时效择型星已象修或置重为能了面过"
        "存加所页间没站名到符下于段要这查应被作和件器十亚关项您小成包如格二尔将它含前类新正方板此误内表定"
    ),
    "zh_Hant": (
        "的語個月碼用密有選入請件是一數不期輸除字在新已可確日你時修刪網改為物重模以或面這使您值位效星定存頁型設要"
        "過被間站能十包此含關無認器前資文到必名內成作擇誤沒須欄小二亞取多項所下視於圖中者行未正格類法空增"
    ),
}
#: First bytes of signs, kana and the common characters, which are a fifth of all.
FIRST_LEVELS = {
    "gb2312": frozenset({0xA1, 0xA3, *range(0xB0, 0xD8)}),
    "euc_jp": frozenset({0xA1, 0xA3, 0xA4, 0xA5, *range(0xB0, 0xD0)}),
    "big5": frozenset(range(0xA1, 0xC7)),
    "euc_kr": frozenset({0xA1, *range(0xB0, 0xC9)}),
}
_KANA = re.compile("[\u3041-\u30ff]")
_KANA_BITS, _FREQUENT_BITS, _STRANGE_BITS = 6, 7, 16
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


def east_asian_bits(text: str) -> int:
    """Information in a text's characters outside ASCII, as the language that they fit best has them."""
    counted = Counter(char for char in text if char > "\x7f")
    return min(sum(times * _cost(char, language) for char, times in counted.items()) for language in _STANDARDS)


@lru_cache(4096)
def _cost(char: str, language: str) -> int:
    if char in _FREQUENT[language]:
        return _FREQUENT_BITS
    if language == "ja" and _KANA.match(char):
        return _KANA_BITS
    standard, common_bits = _STANDARDS[language]
    return common_bits if is_common(char, standard) else _STRANGE_BITS


@lru_cache(4096)
def is_common(char: str, standard: str) -> bool:
    """Is it of the first level of a national standard, or its signs?"""
    try:
        return char.encode(standard)[0] in FIRST_LEVELS[standard]
    except UnicodeEncodeError:
        return False


@lru_cache(1)
def _tables() -> list[dict[str, int]]:
    """Bits of each letter, a table per language. Texts in other scripts may have English words among them."""
    tables = {
        language: {char: cost for cost, group in enumerate(groups.split(" "), start=3) for char in group if char != "-"}
        for language, groups in _LETTERS.items()
    }
    english = {char: cost + 1 for char, cost in tables["en"].items()}
    return [english | table if language in _NOT_LATIN else table for language, table in tables.items()]
