"""Composed views: cones and barrels put into photos without works, and coloured shapes that are neither.

A few hundred photos teach where they were taken as much as what they show: works stand close to the camera, roads
without them are wide and empty. Drawn works on those roads, far and near, and shapes of the same colours on all photos
leave the form as what tells them apart (domain randomisation: Tobin et al. 2017, arXiv 1703.06907).
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw

LEAST_ZOOM = 0.03  # of its area: the smallest part that stands for a photo without works
SMALLEST, LARGEST = 0.06, 0.6  # heights of cones and barrels, of the photo's
HORIZON = 0.35  # of the photo's height: works stand below it
FINER = 4  # times the pixels in which works are drawn, before they are scaled down
Colour = tuple[int, int, int]


def zoomed(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Cut out a part of 3 to 100 % of the area, each magnitude as often as another."""
    share, stretch = _magnitude(LEAST_ZOOM, 1.0, random), _magnitude(0.67, 1.5, random)
    width = min(picture.width, max(16, int(picture.width * (share * stretch) ** 0.5)))
    height = min(picture.height, max(16, int(picture.height * (share / stretch) ** 0.5)))
    left, top = int(random.integers(picture.width - width + 1)), int(random.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def recoloured(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Turn every hue by the same angle, any."""
    values = np.array(picture.convert("HSV"))
    values[..., 0] += np.uint8(random.integers(256))
    return Image.fromarray(values, "HSV").convert("RGB")


def with_shapes(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Draw one to four rectangles, ellipses, polygons or stripes in vivid colours, often those of works."""
    picture = picture.copy()
    draw = ImageDraw.Draw(picture, "RGBA")
    for _ in range(int(random.integers(1, 5))):
        width, height = (int(_magnitude(0.02, 0.5, random) * min(picture.size)) + 2 for _ in range(2))
        left, top = (
            int(random.integers(max(1, whole - part)))
            for whole, part in zip(picture.size, (width, height), strict=True)
        )
        colour = (*_vivid(random), int(random.integers(150, 256)))
        match int(random.integers(4)):
            case 0:
                draw.rectangle((left, top, left + width, top + height), fill=colour)
            case 1:
                draw.ellipse((left, top, left + width, top + height), fill=colour)
            case 2:
                corners = random.random((int(random.integers(3, 6)), 2)) * (width, height) + (left, top)
                draw.polygon([(float(x), float(y)) for x, y in corners], fill=colour)
            case _:
                for line in range(3):
                    y = top + line * height // 3
                    draw.line((left, y, left + width, y), fill=colour, width=max(1, height // 8))
    return picture


def with_works(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Put cones and barrels on the road: one or two anywhere, or a row of three to six that shrinks."""
    picture = picture.copy()
    height = _magnitude(SMALLEST, LARGEST, random) * picture.height + 4
    if random.random() < 0.4:
        middle = picture.height * random.uniform(0.4, 0.8)
        for place in range(int(random.integers(3, 7))):
            size = max(4, int(height * 0.75**place))
            _put(picture, _works(size, random), random, int(middle - size / 2))
    else:
        for _ in range(int(random.integers(1, 3))):
            _put(picture, _works(int(height), random), random)
    return picture


def _put(picture: Image.Image, works: Image.Image, random: np.random.Generator, top: int | None = None) -> None:
    """Paste works; a quarter of them at most may lie outside."""
    left = int(random.integers(-works.width // 4, max(1, picture.width - works.width * 3 // 4)))
    if top is None:
        horizon = int(picture.height * HORIZON)
        top = int(random.integers(horizon, max(horizon + 1, picture.height - works.height * 3 // 4)))
    picture.paste(works, (left, max(0, min(picture.height - works.height, top))), works)


def _works(height: int, random: np.random.Generator) -> Image.Image:
    """Draw a cone or a barrel so high, RGBA: a tapered body with white bands, shaded from side to side, on a base."""
    tall, wide = height * FINER, int(height * FINER * random.uniform(0.5, 0.75))
    drawing = Image.new("RGBA", (wide, tall))
    draw = ImageDraw.Draw(drawing)
    barrel = random.random() < 0.35
    top, bottom = (0.36, 0.42) if barrel else (0.06, 0.33)  # half widths
    foot = tall * (0.93 if barrel else 0.88)

    def slice_of(upper: float, lower: float, colour: Colour) -> None:
        ends = [(y, wide * (top + (bottom - top) * y / foot)) for y in (upper, lower)]
        (y0, half0), (y1, half1) = ends
        centre = wide / 2
        draw.polygon([(centre - half0, y0), (centre + half0, y0), (centre + half1, y1), (centre - half1, y1)], colour)

    body = _hsv(random.uniform(-0.01, 0.07), random.uniform(0.75, 1), random.uniform(0.6, 1))
    slice_of(0, foot, body)
    bands = int(random.integers(2, 4) if barrel else random.integers(0, 4))
    for band in range(bands):
        upper, step = foot * (0.18 + 0.7 * band / bands), foot * 0.7 / bands
        slice_of(upper, upper + step * random.uniform(0.35, 0.6), _grey(190, 256, random))
    base = body if random.random() < 0.6 else _grey(10, 60, random)
    edges = [(0.08, foot), (0.92, foot), (0.99, tall), (0.01, tall)]
    draw.polygon([(wide * x, y) for x, y in edges], base)
    values = np.asarray(drawing, dtype=np.float32)
    values[..., :3] *= np.linspace(random.uniform(0.75, 1.1), random.uniform(0.5, 1.0), wide)[None, :, None]
    values[..., :3] *= random.uniform(0.6, 1.1)  # as light as its surroundings, or not
    shaded = Image.fromarray(values.clip(0, 255).astype(np.uint8), "RGBA")
    small = shaded.resize((max(2, wide // FINER), max(2, height)), Image.Resampling.LANCZOS)
    return small.rotate(float(random.normal(0, 4)), expand=True)


def _magnitude(least: float, most: float, random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(np.log(least), np.log(most))))


def _vivid(random: np.random.Generator) -> Colour:
    """Return a strong colour: one in two is red, orange or yellow, as works are."""
    hue = random.uniform(-0.03, 0.13) if random.random() < 0.5 else random.random()
    return _hsv(hue, random.uniform(0.5, 1), random.uniform(0.4, 1))


def _hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (int(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))
    return red, green, blue


def _grey(least: int, most: int, random: np.random.Generator) -> Colour:
    value = int(random.integers(least, most))
    return value, value, value
