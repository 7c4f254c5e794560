"""Real sentences of many languages, in the encodings they were written in: read right, or refused; never garbled."""

from __future__ import annotations

import unicodedata

import pytest

from apps.documents.parsing import ParseError
from apps.documents.parsing.encoding import decode

#: By language: encodings, sentences.
SENTENCES: dict[str, tuple[str, list[str]]] = {
    "lv": (
        "cp1257 iso8859_13",
        [
            "Bibliotēka tiek atvērta deviņos.",
            "Bibliotēka tiek atvērta deviņos no rīta un slēgta astoņos vakarā. Lasītājiem jāuzrāda karte, "
            "un bērni drīkst ienākt kopā ar vecākiem. Šogad mēs esam iegādājušies jaunas grāmatas.",
            "Rīgas pilsētas pašvaldība aicina iedzīvotājus piedalīties sabiedriskajā apspriešanā, kas "
            "notiks ceturtdien plkst. 17.00 Rātsnamā. Ieeja brīva.",
        ],
    ),
    "lt": (
        "cp1257 iso8859_13",
        [
            "Biblioteka atidaroma devintą valandą.",
            "Biblioteka atidaroma devintą valandą ryto ir uždaroma aštuntą vakaro. Šiais metais įsigijome "
            "naujų knygų, kurias galite skaityti vietoje arba pasiimti į namus.",
            "Vilniaus miesto savivaldybė kviečia gyventojus dalyvauti viešame svarstyme, kuris vyks "
            "ketvirtadienį. Įėjimas laisvas.",
            "Ąžuolas žydi, lietuvių kalba graži, žmonės džiaugiasi.",
        ],
    ),
    "et": (
        "cp1257 iso8859_13 cp1252 iso8859_15",
        [
            "Raamatukogu avatakse kell üheksa hommikul.",
            "Raamatukogu avatakse kell üheksa hommikul ja suletakse õhtul kell kaheksa. Täna on väga ilus "
            "ilm, õues sööme jäätist ja räägime lõbusaid lugusid.",
            "Šokolaad on köögis, žürii otsustab täna õhtul.",
        ],
    ),
    "vi": (
        "cp1258",
        [
            "Thư viện mở cửa lúc chín giờ sáng.",
            "Hà Nội là thủ đô của nước Cộng hòa xã hội chủ nghĩa Việt Nam. Thành phố có nhiều hồ đẹp và "
            "những con phố cổ. Người dân thường uống cà phê vào buổi sáng.",
        ],
    ),
    "de": (
        "cp1252 mac_roman cp850",
        [
            "Die Bücherei öffnet um neun Uhr früh.",
            "Größe und Länge: Die Brücke über den Fluss wäre schöner. Übermäßig viele Gäste kamen für das Frühstück.",
            "Müller",
        ],
    ),
    "fr": (
        "cp1252 mac_roman cp850",
        [
            "La bibliothèque ouvre à neuf heures.",
            "L'été où j'étais là, ça coûtait 15 £ à peine. La bibliothèque est fermée le dimanche; les "
            "élèves y étudient jusqu'à dix-huit heures.",
            "Noël à la forêt, où l'hôtel français reçoit très peu de clients; garçon, un œuf s'il vous plaît.",
        ],
    ),
    "es": (
        "cp1252 mac_roman cp850",
        [
            "La biblioteca abrirá mañana a las nueve.",
            "¿Cuándo abrirá la biblioteca mañana? El niño preguntó si podía leer más allá del pasillo, "
            "según la señora.",
        ],
    ),
    "pt": (
        "cp1252 cp850",
        [
            "A biblioteca não abre às nove, porém há exceções.",
            "A população não está satisfeita com as decisões da câmara. Amanhã haverá uma reunião às três horas.",
        ],
    ),
    "sv": (
        "cp1252 cp850",
        [
            "Biblioteket öppnar klockan nio på morgonen.",
            "Biblioteket öppnar klockan nio på morgonen och stänger åtta på kvällen. Små barn får låna böcker själva.",
        ],
    ),
    "da": (
        "cp1252",
        [
            "Biblioteket åbner klokken ni og lukker når det bliver mørkt.",
            "København er hovedstaden; på øen går børn i skole hver dag, også når det er koldt.",
        ],
    ),
    "fi": (
        "cp1252 iso8859_15",
        [
            "Kirjasto avataan yhdeksältä.",
            "Tänään on kaunis päivä ja menemme yhdessä kävelylle metsään, jossa syömme eväitä.",
        ],
    ),
    "is": (
        "cp1252",
        [
            "Bókasafnið opnar klukkan níu.",
            "Ísland er eyja í Norður-Atlantshafi. Þar búa um þrjú hundruð og áttatíu þúsund manns og "
            "veðrið er breytilegt.",
        ],
    ),
    "tr": (
        "cp1254",
        [
            "Kütüphane saat dokuzda açılıyor.",
            "İstanbul'da yağmur yağıyor. Çocuklar okula gidiyor, öğretmenler ise bugün çok meşgul. Şehir "
            "kütüphanesi akşam sekizde kapanır.",
            "Işık söndü, ağaç düştü, şimdi bütün köy karanlık.",
        ],
    ),
    "pl": (
        "cp1250 iso8859_2 cp852",
        [
            "Biblioteka będzie otwarta o dziewiątej, proszę o chwilę cierpliwości.",
            "Urząd miasta informuje, że od poniedziałku biuro będzie czynne dłużej. Zażółć gęślą jaźń, "
            "mówił stary człowiek.",
        ],
    ),
    "cs": (
        "cp1250 iso8859_2 cp852",
        [
            "Knihovna se otevírá v devět hodin ráno.",
            "Příliš žluťoučký kůň úpěl ďábelské ódy. Městský úřad oznamuje, že knihovna bude v pondělí zavřená.",
        ],
    ),
    "sk": (
        "cp1250 iso8859_2",
        [
            "Knižnica sa otvára o deviatej hodine ráno.",
            "Mestský úrad oznamuje, že knižnica bude v pondelok zatvorená. Ďakujeme za pochopenie a "
            "tešíme sa na vašu návštevu.",
        ],
    ),
    "hu": (
        "cp1250 iso8859_2 cp852",
        [
            "A könyvtár reggel kilenc órakor nyílik.",
            "A könyvtár reggel kilenc órakor nyílik és este nyolckor zár. Az őszi időszakban több gyerek "
            "jön, ezért újabb könyveket rendeltünk.",
            "Árvíztűrő tükörfúrógép.",
        ],
    ),
    "ro": (
        "cp1250 iso8859_2",
        [
            "Biblioteca se deschide la ora nouă dimineaţa.",
            "Primăria anunţă că biblioteca va fi închisă luni. Vă mulţumim pentru înţelegere şi vă "
            "aşteptăm în fiecare săptămână.",
        ],
    ),
    "hr": (
        "cp1250 iso8859_2",
        [
            "Knjižnica se otvara u devet sati, učenici već čekaju ispred.",
            "Gradska uprava obavještava građane da će knjižnica biti zatvorena u ponedjeljak. Đaci mogu "
            "vratiti knjige kasnije, a šetalište je otvoreno.",
        ],
    ),
    "sl": (
        "cp1250 iso8859_2",
        [
            "Knjižnica se odpre ob devetih, učenci že čakajo.",
            "Mestna občina obvešča, da bo knjižnica v ponedeljek zaprta. Žal nam je za nevšečnosti, "
            "želimo vam lep dan.",
        ],
    ),
    "he": (
        "cp1255 cp862 iso8859_8",
        [
            "הספרייה נפתחת בשעה תשע בבוקר.",
            "הספרייה נפתחת בשעה תשע בבוקר ונסגרת בשמונה בערב. הילדים קוראים ספרים חדשים.",
        ],
    ),
    "ru": (
        "cp1251 koi8-r cp866 mac_cyrillic",
        [
            "Библиотека открывается в девять часов утра.",
            "Библиотека открывается в девять часов утра и закрывается в восемь вечера. В этом году мы "
            "купили новые книги, которые можно читать на месте.",
        ],
    ),
    "uk": (
        "cp1251 koi8_u mac_cyrillic",
        [
            "Бібліотека відчиняється о дев'ятій годині ранку.",
            "Бібліотека відчиняється о дев'ятій ранку. Цього року ми придбали нові книжки, які можна "
            "читати на місці; їхня кількість зростає.",
        ],
    ),
    "bg": (
        "cp1251 mac_cyrillic",
        [
            "Библиотеката отваря в девет часа сутринта.",
            "Общината съобщава, че библиотеката ще бъде затворена в понеделник. Благодарим ви за разбирането.",
        ],
    ),
    "ja": (
        "utf-16-le utf-16-be",
        [
            "図書館は午前九時に開きます。日本語です。",
            "東京都の図書館は今日休館です。",
            "カタカナとひらがな",
            "図書館",
        ],
    ),
    "zh": (
        "utf-16-le utf-16-be",
        [
            "图书馆早上九点开门，晚上八点关门，欢迎光临。",
            "圖書館早上九點開門，晚上八點關門，歡迎大家光臨。",
            "北京是中国的首都。",
            "图书馆2024年开放。",
        ],
    ),
    "ko": (
        "utf-16-le utf-16-be",
        [
            "도서관은 아침 아홉 시에 문을 엽니다.",
            "안녕하세요",
        ],
    ),
}
#: Too little to tell by; what may be refused.
UNCERTAIN = {
    ("mac_roman", "Müller"),
    ("cp850", "Müller"),
    ("cp850", "Biblioteket öppnar klockan nio på morgonen."),
    ("iso8859_2", "Knižnica sa otvára o deviatej hodine ráno."),
    ("utf-16-le", "図書館"),
    ("utf-16-be", "図書館"),
}
_VOWEL_MARKS = "\u0302\u0306\u031b"


def encoded(text: str, encoding: str) -> tuple[str, bytes] | None:
    """The text as it can be written in the encoding, which for Vietnamese has tones as marks; None where it cannot."""
    if encoding == "cp1258":
        text = "".join(map(_with_tone_apart, text))
    try:
        return text, text.encode(encoding)
    except UnicodeEncodeError:
        return None


def _with_tone_apart(char: str) -> str:
    try:
        char.encode("cp1258")
    except UnicodeEncodeError:
        letter, *marks = unicodedata.normalize("NFD", char)
        vowel = unicodedata.normalize("NFC", letter + "".join(mark for mark in marks if mark in _VOWEL_MARKS))
        return vowel + "".join(mark for mark in marks if mark not in _VOWEL_MARKS)
    return char


CASES = [
    (encoding, *found)
    for encodings, sentences in SENTENCES.values()
    for encoding in encodings.split()
    for sentence in sentences
    if (found := encoded(sentence, encoding))
]


@pytest.mark.parametrize(("encoding", "text", "data"), CASES, ids=lambda value: ascii(value)[:24])
def test_a_sentence_is_read_as_it_was_written_or_refused(encoding: str, text: str, data: bytes) -> None:
    try:
        found = decode(data)
    except ParseError:
        found = None
    assert found == text or (found is None and (encoding, text) in UNCERTAIN)


@pytest.mark.parametrize("language", [each for each in SENTENCES if each not in ("ja", "ko", "zh")])
def test_a_long_text_is_read_as_it_was_written(language: str) -> None:
    encodings, sentences = SENTENCES[language]
    for encoding in encodings.split():
        found = [each for sentence in sentences if (each := encoded(sentence + "\n", encoding))]
        text, data = "".join(text for text, _ in found), b"".join(data for _, data in found)
        assert decode(data * 30) == text * 30
