"""Control words of RTF that the reader knows (RTF 1.9.1, appendix B)."""

from __future__ import annotations

SKIPPED = frozenset(  # destinations that hold nothing a reader sees, or that once more
    b"colortbl pict objdata objclass objname fldinst header headerl headerr headerf footer footerl footerr footerf"
    b" ftnsep ftnsepc ftncn aftnsep aftnsepc aftncn sp shprslt nonshppict xe tc txe rxe nonesttables mmathPict"
    b" bkmkstart bkmkend atnid atnauthor atntime atnref atndate atnicn atnparent datafield formfield private filetbl"
    b" listtable list listoverridetable listoverride revtbl rsidtbl template generator themedata datastore latentstyles"
    b" colorschememapping pnseclvl pn pntxta pntxtb falt panose background author operator subject keywords comment"
    b" doccomm category manager company creatim revtim printim buptim hlinkbase xmlnstbl userprops docvar".split()
)
STARRED = frozenset(  # destinations with text that old readers skip
    b"shpinst shptxt do dptxbxtext annotation nesttableprops ud moMath moMathPara mmath pntext listtext".split()
)
FRAMES = frozenset({b"footnote", b"annotation", b"shptxt", b"dptxbxtext"})
CHARACTERS = {
    b"tab": "\t",
    b"emdash": "—",
    b"endash": "–",
    b"emspace": " ",
    b"enspace": " ",
    b"qmspace": " ",
    b"bullet": "•",
    b"lquote": "‘",
    b"rquote": "’",
    b"ldblquote": "“",
    b"rdblquote": "”",
    b"line": "\n",
    b"lbr": "\n",
    b"softline": "\n",
}
SYMBOLS = {b"~": "\u00a0", b"_": "-"}
ESCAPED = frozenset(b"{ } \\".split())  # may be the second byte of a character
