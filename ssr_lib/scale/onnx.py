"""A whole descriptor network as ONNX: backbone, head, whitening and L2, for any batch, height and width."""

import copy
from pathlib import Path

import numpy as np
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.export import Dim

from ssr_lib.files import replacing
from ssr_lib.network import RetrievalNet

LARGEST_ERROR = 1e-5


def export(net: RetrievalNet, path: Path | str) -> float:
    """Write `net` as ONNX to `path` once onnxruntime agrees, for another batch and size; gives the largest difference.

    Input "images" (B, 3, H, W) float32, normalised; output "descriptors" (B, D), unit rows. `net` is left on the CPU.
    Raises `ImportError` without `pip install .[onnx]`, and `ValueError` for descriptors that differ by more than 1e-5.
    """
    import onnx
    import onnxruntime

    names = {"input_names": ["images"], "output_names": ["descriptors"]}
    shapes = ({0: Dim("batch"), 2: Dim("height", min=64), 3: Dim("width", min=64)},)  # below, maps are single places
    traced = _traceable(net.cpu().eval()), (torch.zeros(2, 3, 96, 160),)
    model = torch.onnx.export(*traced, dynamic_shapes=shapes, dynamo=True, verbose=False, **names).model_proto
    if any(isinstance(module, Conv2dSame) for module in net.modules()):
        for node in model.graph.node:
            if node.op_type == "Conv" and any(a.name == "strides" and max(a.ints) > 1 for a in node.attribute):
                kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute("auto_pad", "SAME_UPPER")])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(3, 3, 131, 97, generator=torch.Generator().manual_seed(0))  # odd sides now
    worst = float(np.abs(session.run(None, {"images": images.numpy()})[0] - net(images).detach().numpy()).max())
    if not worst <= LARGEST_ERROR:
        raise ValueError(f"onnxruntime differs from torch by {worst:g}, more than {LARGEST_ERROR:g}: not written")
    with replacing(path) as temporary:
        onnx.save(model, temporary)
    return worst


def _traceable(net: RetrievalNet) -> RetrievalNet:
    """A copy without loops whose length depends on the picture, and without TensorFlow's SAME padding.

    That padding depends on the size; ONNX has it as an attribute, set above. Here stands one that gives equal shapes.
    """
    net = copy.deepcopy(net)
    for name, same in [*net.named_modules()]:
        if isinstance(same, Conv2dSame):
            options = {"padding": [size // 2 for size in same.kernel_size], "bias": same.bias is not None}
            sizes = same.in_channels, same.out_channels, same.kernel_size, same.stride
            plain = nn.Conv2d(*sizes, groups=same.groups, **options)
            plain.load_state_dict(same.state_dict())
            net.set_submodule(name, plain)
        if isinstance(same, nn.ModuleList):  # encoders: in training they take all places at once; no layer changes
            same.training = True
    return net
