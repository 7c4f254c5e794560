"""What the elements of documents are called in JATS, DocBook, DITA, TEI and HTML, sorted by what they are."""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())


#: One of these makes XML a document.
MARKS = _names(
    "p para simpara formalpara sec sect1 refsect1 shortdesc programlisting codeblock itemizedlist orderedlist ul ol"
    " blockquote disp-quote informaltable refnamediv invention-title lg"
)
TITLES = _names("title head article-title book-title invention-title bridgehead heading refname")
SUBTITLES = _names("subtitle trans-title titleabbrev")
INFO = _names(
    "front front-stub article-meta title-group info articleinfo bookinfo chapterinfo sectioninfo sect1info sect2info"
    " setinfo refentryinfo prolog teiHeader fileDesc titleStmt book-meta book-title-group journal-meta"
    " journal-title-group refnamediv"
)
#: Their title is a caption, not a heading.
CAPTIONED = _names(
    "fig figure table-wrap table informaltable example informalexample caption formalpara note tip warning caution"
    " important hint danger boxed-text step procedure equation screenshot disp-quote blockquote list ul ol"
    " itemizedlist orderedlist variablelist simpletable media supplementary-material statement sidebar"
)
LISTS = _names(
    "list itemizedlist orderedlist ul ol sl simplelist procedure substeps steps steps-unordered substep choices"
    " variablelist def-list dl parml glosslist calloutlist listBibl"
)
ITEMS = _names("listitem list-item li sli step member callout item choice substep")
PAIRS = _names("varlistentry def-item dlentry plentry glossentry")
TERMS = _names("term dt pt glossterm")
ORDERED = _names("orderedlist ol procedure steps substeps")
TABLES = _names("table informaltable tgroup simpletable array")
CODE = _names("programlisting screen literallayout codeblock pre preformat msgblock computeroutput synopsis listing eg")
FOOTNOTES = _names("footnote fn endnote")
REFERENCES = _names("ref biblioentry bibliomixed biblStruct element-citation")
INLINE = _names(
    "funcsynopsis cmdsynopsis methodsynopsis disp-formula inline-formula equation inlineequation math string-name"
    " address mixed-citation bibl nlm-citation"
)
PEOPLE = _names("contrib name personname author editor othercredit persName")
SKIPPED = _names(
    "indexterm index-term remark graphic inline-graphic imageobject imagedata audioobject videoobject alt alt-text"
    " object-id tex-math self-uri counts script style related-article drawings"
    " img resourceid textobject titlealts metadata"
)
#: References to notes and addresses, whose marks would stand in the middle of a sentence.
NOTE_REFERENCES = _names("fn aff table-fn author-notes corresp")
SECTIONS = _names("sec section div sp")
#: Running text, whatever is in it.
PARAGRAPHS = _names(
    "p para simpara shortdesc cmd info ab l line salute signed speaker opener closer attrib attribution"
    " stepresult stepxmp copyright-statement verse-line refpurpose"
)
#: A few words in one of these are no fact but a part of the text.
PROSE = MARKS | SECTIONS | PARAGRAPHS | _names("quote text li listitem item td th entry dt dd term def")
BLOCKS = SECTIONS | LISTS | TABLES | CODE | CAPTIONED | _names("p para simpara attrib lg")
DETAILS = _names("role email bio address affiliation aff degrees orgname on-behalf-of collab")
DATES = _names("date pub-date")
HEADS = TITLES | SUBTITLES
#: Words of these and of their neighbours are never one word.
APART = BLOCKS | ITEMS | HEADS | _names("break lb br td th entry stentry tr row strow dt dd term def cmd info step")
PROSE_TAGS = ("{*}P", "{*}PARA", *(f"{{*}}{name}" for name in MARKS))
#: In these letters only: another spelling is another vocabulary.
KNOWN = frozenset({"P", "PARA"} | MARKS | (BLOCKS | PAIRS | FOOTNOTES | REFERENCES | HEADS) - SECTIONS)
