"""The image processors of transformers 4.57: which network means which, and what each does where a file is silent.

There are three of each: the slow one, by its bare name; `…Fast`, which works on tensors; and `…Pil`, the slow one of
transformers 5, whose files have the bare name. Tests walk over transformers' own registry and compare all with it.
"""

from typing import Any, Literal

Variant = Literal["slow", "fast", "pil"]
Triple = tuple[float, float, float]

NEAREST, BILINEAR, BICUBIC = 0, 2, 3  # Pillow's numbers
STANDARD = (0.5, 0.5, 0.5)
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SQUARE, SHORTEST = {"height": 224, "width": 224}, {"shortest_edge": 224}

VIT, CLIP, SIGLIP, BEIT = "ViTImageProcessor", "CLIPImageProcessor", "SiglipImageProcessor", "BeitImageProcessor"
CONVNEXT, EFFICIENTNET, BIT = "ConvNextImageProcessor", "EfficientNetImageProcessor", "BitImageProcessor"
LEVIT, MOBILEVIT, PERCEIVER = "LevitImageProcessor", "MobileViTImageProcessor", "PerceiverImageProcessor"
POOLFORMER, TEXTNET, PVT = "PoolFormerImageProcessor", "TextNetImageProcessor", "PvtImageProcessor"
SEGFORMER, EFFICIENTFORMER = "SegformerImageProcessor", "EfficientFormerImageProcessor"
# Not of transformers: other libraries' transforms in the same words.
ULTRALYTICS, TIMM = "UltralyticsClassify", "TimmTransform"
OWN = (ULTRALYTICS, TIMM)
SLOW_ONLY = ("ViTHybridImageProcessor", EFFICIENTFORMER, *OWN)

# Those that can't serve, and why.
REFUSED = {
    "DonutImageProcessor": "it is made for pages of text: it scales twice and may turn the picture; a "
    "ViTImageProcessor with the network's size does instead",
    "Gemma3ImageProcessor": "its network asks for a text beside the picture, so it is no classifier of pictures alone",
    "ImageGPTImageProcessor": "it makes numbers of colours, not pixels, and its network reads those",
    "Siglip2ImageProcessor": "it cuts a picture into patches whose rows and columns vary (NaFlex), and a graph has one "
    "shape; a SigLIP2 of fixed size has model_type 'siglip' and a SiglipImageProcessor",
}
# A file that names no processor means that of its network, by config.json's model_type; the slow one.
MODEL_TYPES = {
    "beit": BEIT,
    "bit": BIT,
    "clip": CLIP,
    "convnext": CONVNEXT,
    "convnextv2": CONVNEXT,
    "cvt": CONVNEXT,
    "data2vec-vision": BEIT,
    "deit": "DeiTImageProcessor",
    "dinat": VIT,
    "dinov2": BIT,
    "donut-swin": "DonutImageProcessor",
    "efficientformer": EFFICIENTFORMER,
    "efficientnet": EFFICIENTNET,
    "focalnet": BIT,
    "hiera": BIT,
    "ijepa": VIT,
    "imagegpt": "ImageGPTImageProcessor",
    "levit": LEVIT,
    "metaclip_2": CLIP,
    "mobilenet_v1": "MobileNetV1ImageProcessor",
    "mobilenet_v2": "MobileNetV2ImageProcessor",
    "mobilevit": MOBILEVIT,
    "mobilevitv2": MOBILEVIT,
    "nat": VIT,
    "perceiver": PERCEIVER,
    "poolformer": POOLFORMER,
    "pvt": PVT,
    "pvt_v2": PVT,
    "regnet": CONVNEXT,
    "resnet": CONVNEXT,
    "segformer": SEGFORMER,
    "shieldgemma2": "Gemma3ImageProcessor",
    "siglip": SIGLIP,
    "siglip2": "Siglip2ImageProcessor",
    "swiftformer": VIT,
    "swin": VIT,
    "swinv2": VIT,
    "textnet": TEXTNET,
    "van": CONVNEXT,
    "vit": VIT,
    "vit_hybrid": "ViTHybridImageProcessor",
    "vit_msn": VIT,
}


def _defaults(
    size: dict[str, int], resample: int, mean: Triple, std: Triple, crop: int | None = None
) -> dict[str, Any]:
    return {
        "do_resize": True,
        "size": size,
        "resample": resample,
        "do_center_crop": crop is not None,
        "crop_size": crop,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }


# Defaults of transformers' slow processors, for the keys that a published file leaves out.
PROCESSORS: dict[str, dict[str, Any]] = {
    VIT: _defaults(SQUARE, BILINEAR, STANDARD, STANDARD),
    "DeiTImageProcessor": _defaults({"height": 256, "width": 256}, BICUBIC, STANDARD, STANDARD, 224),
    BEIT: _defaults({"height": 256, "width": 256}, BICUBIC, STANDARD, STANDARD, 224),
    CONVNEXT: _defaults({"shortest_edge": 384}, BILINEAR, STANDARD, STANDARD) | {"crop_pct": 224 / 256},
    BIT: _defaults(SHORTEST, BICUBIC, OPENAI_MEAN, OPENAI_STD, 224),
    CLIP: _defaults(SHORTEST, BICUBIC, OPENAI_MEAN, OPENAI_STD, 224),
    "ViTHybridImageProcessor": _defaults(SHORTEST, BICUBIC, OPENAI_MEAN, OPENAI_STD, 224),
    SIGLIP: _defaults(SQUARE, BICUBIC, STANDARD, STANDARD),
    "MobileNetV1ImageProcessor": _defaults({"shortest_edge": 256}, BILINEAR, STANDARD, STANDARD, 224),
    "MobileNetV2ImageProcessor": _defaults({"shortest_edge": 256}, BILINEAR, STANDARD, STANDARD, 224),
    EFFICIENTNET: _defaults({"height": 346, "width": 346}, NEAREST, STANDARD, STANDARD)
    | {"crop_size": 289, "rescale_offset": False, "include_top": True},
    EFFICIENTFORMER: _defaults(SQUARE, BICUBIC, IMAGENET_MEAN, IMAGENET_STD, 224),
    LEVIT: _defaults(SHORTEST, BICUBIC, IMAGENET_MEAN, IMAGENET_STD, 224),
    MOBILEVIT: _defaults(SHORTEST, BILINEAR, STANDARD, STANDARD, 256)
    | {"do_normalize": False, "image_mean": None, "image_std": None, "do_flip_channel_order": True},
    PERCEIVER: _defaults(SQUARE, BICUBIC, IMAGENET_MEAN, IMAGENET_STD, 256),
    POOLFORMER: _defaults(SHORTEST, BICUBIC, IMAGENET_MEAN, IMAGENET_STD, 224) | {"crop_pct": 0.9},
    PVT: _defaults(SQUARE, BILINEAR, IMAGENET_MEAN, IMAGENET_STD),
    SEGFORMER: _defaults({"height": 512, "width": 512}, BILINEAR, IMAGENET_MEAN, IMAGENET_STD),
    TEXTNET: _defaults({"shortest_edge": 640}, BILINEAR, IMAGENET_MEAN, IMAGENET_STD)
    | {"crop_size": 224, "size_divisor": 32},
    TIMM: _defaults(SQUARE, BICUBIC, IMAGENET_MEAN, IMAGENET_STD) | {"crop_pct": 0.875, "crop_mode": "center"},
    # What `ultralytics.data.augment.classify_transforms` does.
    ULTRALYTICS: _defaults(SHORTEST, BILINEAR, (0.0,) * 3, (1.0,) * 3, 224),
}
# Where the other two differ, and where transformers 5 does.
NEWER = {BEIT: {"size": SQUARE, "do_center_crop": False}}
PIL = {name: {"resample": BICUBIC} for name in (CONVNEXT, EFFICIENTNET, MOBILEVIT, PVT)}


def processor_kind(name: str) -> tuple[str, Variant] | None:
    """Return the slow processor's name and which of the three a name means; None: none that is known here."""
    slow = name.removesuffix("Fast") if name.endswith("Fast") else name.removesuffix("Pil")
    if slow not in PROCESSORS.keys() | REFUSED.keys() or (slow in OWN and slow != name):
        return None
    if name == slow or slow in SLOW_ONLY:
        return slow, "slow"
    return slow, "fast" if name.endswith("Fast") else "pil"


def defaults(name: str, variant: Variant) -> dict[str, Any]:
    """Return what an image processor takes for the keys that a file leaves out."""
    if variant == "slow":
        return PROCESSORS[name]
    return PROCESSORS[name] | NEWER.get(name, {}) | (PIL.get(name, {}) if variant == "pil" else {})
