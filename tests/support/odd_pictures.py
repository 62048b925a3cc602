"""Pictures that readers decode differently, each as an encoded file of 56 x 28 pixels when seen."""

import io

import numpy as np
from PIL import Image

SIZE = (56, 28)


def _encoded(picture, kind, **more):
    stream = io.BytesIO()
    picture.save(stream, kind, **more)
    return stream.getvalue()


def _colours():
    """Red to blue from left to right, darker below: no two corners are alike."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    channels = np.stack([(1 - x) * (1 - y / 2), y * 0.5, x * (1 - y / 2)], axis=-1)
    return Image.fromarray((channels * 255).astype(np.uint8))


def _drawing(mode):
    """Half-transparent strokes on nothing."""
    picture = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (4, 4, 20, 20))
    picture.paste((200, 30, 30, 128), (30, 4, 50, 24))
    return picture.convert(mode)


def odd_pictures():
    """By name; ``plain`` ones first, which are kept as they are."""
    colours = _colours()
    lying = Image.Exif()
    lying[0x0112] = 6
    deep = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]).astype(np.uint16)
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE)
    frames = [colours.convert("L").convert("P"), palette]
    turned = colours.transpose(Image.Transpose.ROTATE_90)
    return {
        "plain png": _encoded(colours, "PNG"),
        "plain jpeg": _encoded(colours, "JPEG"),
        "plain webp": _encoded(colours, "WEBP"),
        "plain grey": _encoded(colours.convert("L"), "PNG"),
        "exif": _encoded(turned, "JPEG", exif=lying),
        "exif png": _encoded(turned, "PNG", exif=lying),
        "rgba": _encoded(_drawing("RGBA"), "PNG"),
        "rgba webp": _encoded(_drawing("RGBA"), "WEBP", lossless=True),
        "la": _encoded(_drawing("LA"), "PNG"),
        "palette gif": _encoded(_drawing("RGBA"), "GIF"),
        "palette png": _encoded(palette, "PNG"),
        "transparent rgb": _encoded(colours, "PNG", transparency=colours.getpixel((0, 0))),
        "16 bits": _encoded(Image.fromarray(deep), "PNG"),
        "16 bits tiff": _encoded(Image.fromarray(deep), "TIFF"),
        "1 bit": _encoded(colours.convert("1"), "PNG"),
        "cmyk": _encoded(colours.convert("CMYK"), "JPEG"),
        "bmp": _encoded(colours, "BMP"),
        "tiff": _encoded(colours, "TIFF"),
        "animated gif": _encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated webp": _encoded(
            colours, "WEBP", save_all=True, append_images=[turned.resize(SIZE)]
        ),
    }
