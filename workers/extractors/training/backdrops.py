"""What surrounds or covers a picture: plain colours, other pictures, caption bands, stickers."""

import functools
import random

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

__all__ = ["captioned", "plain", "stickers"]

CAPTIONS = 96
CAPTION_SHAPE = (48, 192)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!?.,'"


@functools.cache
def _captions() -> torch.Tensor:
    """(CAPTIONS, 1, 48, 192) float32 in [0, 1]: lines of random letters, as the opacity of their ink."""
    draw_from = random.Random(0)
    drawn = []
    for _ in range(CAPTIONS):
        canvas = Image.new("L", CAPTION_SHAPE[::-1], 0)
        lines = draw_from.randint(1, 3)
        font = ImageFont.load_default(draw_from.uniform(0.6, 0.95) * CAPTION_SHAPE[0] / lines)
        text = "\n".join(_line(draw_from, draw_from.randint(4, 10 + 6 * lines)) for _ in range(lines))
        centre = (CAPTION_SHAPE[1] / 2, CAPTION_SHAPE[0] / 2)
        ImageDraw.Draw(canvas).multiline_text(centre, text, 255, font, anchor="mm", align="center", spacing=1)
        drawn.append(np.array(canvas))
    return torch.from_numpy(np.stack(drawn))[:, None].float().div_(255.0)


def _line(draw_from: random.Random, length: int) -> str:
    return "".join(" " if draw_from.random() < 0.17 else draw_from.choice(LETTERS) for _ in range(length))


def plain(count: int, device: torch.device) -> torch.Tensor:
    """(count, 3, 1, 1): mostly black, often white, sometimes a grey or any colour."""
    kind = torch.rand(count, 1, device=device)
    grey = torch.rand(count, 1, device=device).expand(-1, 3)
    fill = torch.where(kind < 0.9, grey, torch.rand(count, 3, device=device))
    fill = torch.where(kind < 0.75, torch.ones_like(fill), fill)
    fill = torch.where(kind < 0.5, torch.zeros_like(fill), fill)
    return fill.view(count, 3, 1, 1)


def captioned(backdrop: torch.Tensor, left: float, top: float, right: float, bottom: float) -> None:
    """Write a caption into a box of ``backdrop`` (3, h, w), in place; the box is in parts of the sides, 0 to 1."""
    height, width = backdrop.shape[1:]
    x, y = round(left * width), round(top * height)
    w, h = round(right * width) - x, round(bottom * height) - y
    if w < 8 or h < 4:
        return
    ink = random.choice(_captions()).to(backdrop.device)
    ink = F.interpolate(ink[None], (h, w), mode="bilinear", antialias=True)[0]
    box = backdrop[:, y : y + h, x : x + w]
    tone = 0.0 if float(box.mean()) > 0.5 else 1.0
    backdrop[:, y : y + h, x : x + w] = torch.lerp(box, torch.full_like(box, tone), ink)


def stickers(image: torch.Tensor, other: torch.Tensor) -> None:
    """Cover parts of ``image`` (3, h, w), in place, with one to three discs, patches of ``other`` or captions."""
    height, width = image.shape[1:]
    for _ in range(random.randint(1, 3)):
        w, h = int(width * random.uniform(0.08, 0.42)), int(height * random.uniform(0.08, 0.42))
        x, y = random.randint(0, width - w), random.randint(0, height - h)
        box = image[:, y : y + h, x : x + w]
        kind = random.random()
        if kind < 0.35:
            captioned(image, random.uniform(0.0, 0.3), y / height, random.uniform(0.7, 1.0), (y + h) / height)
        elif kind < 0.65:
            box.copy_(other[:, y : y + h, x : x + w])
        else:
            box.copy_(torch.where(_disc(h, w, image.device), torch.rand(3, 1, 1, device=image.device), box))


def _disc(height: int, width: int, device: torch.device) -> torch.Tensor:
    rows = torch.linspace(-1.0, 1.0, height, device=device)[:, None]
    columns = torch.linspace(-1.0, 1.0, width, device=device)[None]
    return rows.square() + columns.square() <= 1.0
