"""Pictures of text: scans, photographs, screenshots."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, ImageSequence

from apps.documents.parsing import ocr
from apps.documents.parsing.build import Builder
from apps.documents.parsing.types import Parsed, ParseError

FINGERPRINT = "image/1"

MAX_PIXELS = 200_000_000
MAX_FRAMES = 1_000
# Letters of a page at screen resolution are too small for tesseract: such pictures are enlarged until the longer side
# has so many pixels, which is a page at 200 dots per inch.
_LONG_SIDE, _MOST_ENLARGED = 2_200, 3.0


def parse(data: bytes, *, media_type: str, charset: str | None) -> Parsed:
    """The text that can be read in the picture, paragraph by paragraph; each frame of a TIFF is a page.

    Raises ParseError: "unsupported" where there is no tesseract, "corrupt" or "too_large" for a picture that cannot be
    opened, "timeout".
    """
    ocr.required()
    built = Builder()
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(io.BytesIO(data)) as picture:
            for page, frame in enumerate(ImageSequence.Iterator(picture), start=1):
                if page > MAX_FRAMES or (page > 1 and picture.format != "TIFF"):  # an animation is one picture
                    break
                built.page = page
                for paragraph in ocr.read(_prepared(frame)):
                    built.paragraph(paragraph)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ParseError("too_large", f"The picture has more than {MAX_PIXELS} pixels.") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise ParseError("corrupt", "The picture is damaged and cannot be opened.") from error
    return built.parsed(media_type=media_type, parser=FINGERPRINT)


def _prepared(frame: Image.Image) -> bytes:
    """A frame upright and in grey on white, large enough to be read, as PGM."""
    upright = ImageOps.exif_transpose(frame)
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    grey = upright.convert("L")
    scale = min(_MOST_ENLARGED, _LONG_SIDE / max(grey.size))
    if scale > 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.LANCZOS)
    return ocr.pgm(grey.width, grey.height, grey.tobytes())
