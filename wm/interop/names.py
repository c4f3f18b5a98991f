"""Every name that a DINO-WM checkpoint may hold, as (module, name): whatever is not here is refused.

Source: gaoyuezhou/dino_wm, train.py (`save_ckpt`), models/*.py; what torch 2 and accelerate 1 write for them.
"""

from __future__ import annotations

import torch

CONTAINERS = {
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("torch", "Size"),
    ("builtins", "dict"),
    ("builtins", "set"),
}

TENSORS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_parameter_with_state"),
}

STORAGES = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "LongStorage"): torch.int64,
    ("torch", "IntStorage"): torch.int32,
    ("torch", "ShortStorage"): torch.int16,
    ("torch", "CharStorage"): torch.int8,
    ("torch", "ByteStorage"): torch.uint8,
    ("torch", "BoolStorage"): torch.bool,
}

PREDICTOR = ("models.vit", "ViTPredictor")
EMBEDDING = ("models.proprio", "ProprioceptiveEmbedding")
VQVAE = ("models.vqvae", "VQVAE")
TRANSPOSED_CONV = ("models.decoder.transposed_conv", "TransposedConvDecoder")

MODULES = {
    PREDICTOR,
    *(("models.vit", name) for name in ("Transformer", "Attention", "FeedForward")),
    EMBEDDING,
    ("models.dummy", "DummyRepeatActionEncoder"),
    VQVAE,
    *(("models.vqvae", name) for name in ("Quantize", "ResBlock", "Encoder", "Decoder")),
    TRANSPOSED_CONV,
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.normalization", "LayerNorm"),
    ("torch.nn.modules.dropout", "Dropout"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.container", "ModuleList"),
    *(("torch.nn.modules.activation", name) for name in ("GELU", "ReLU", "Softmax")),
    *(("torch.nn.modules.conv", name) for name in ("Conv1d", "Conv2d", "ConvTranspose2d")),
    ("torch.nn.modules.flatten", "Unflatten"),
    ("torch.nn.modules.upsampling", "Upsample"),
}

# Optimisers come wrapped by accelerate, which drags its own state along. All of it is read as records and left aside.
OPTIMIZERS = {
    *((f"torch.optim.{name.lower()}", name) for name in ("Adam", "AdamW")),
    ("accelerate.optimizer", "AcceleratedOptimizer"),
    *(("accelerate.state", name) for name in ("AcceleratorState", "PartialState", "GradientState")),
    ("accelerate.utils.dataclasses", "TorchDynamoPlugin"),
    ("accelerate.utils.dataclasses", "GradientAccumulationPlugin"),
}

# Made by a call with plain arguments.
VALUES = {
    ("torch", "device"),
    *(("accelerate.utils.dataclasses", name) for name in ("DistributedType", "DynamoBackend", "PrecisionType")),
}

CLASSES = MODULES | OPTIMIZERS
ALLOWED = CONTAINERS | TENSORS | STORAGES.keys() | CLASSES | VALUES
