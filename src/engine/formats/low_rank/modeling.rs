//! The modeling file: what transformers loads instead of a class of its own.
//!
//! Owns: its text. Must not know: weights.
//! Invariant: it reads the shapes of layers from config.json; the text depends on the architecture's name alone.

/// The file.
pub(super) const FILE: &str = "modeling_low_rank.py";
/// The class in it.
pub(super) const CLASS: &str = "LowRankModel";

/// The architecture's own class, whose layers are replaced by several before weights are loaded.
pub(super) fn text(base: &str) -> String {
    format!(
        r#"# Written by modelpress. Layers that config.json lists under "low_rank" are several, one behind the other. A number is
# the rank of two linear layers, y = left (right x) + bias; a list has the convolutions that stand for one.
from torch import nn
from transformers import {base}


def pair(linear, rank):
    kind = {{"device": linear.weight.device, "dtype": linear.weight.dtype}}
    return nn.Sequential(
        nn.Linear(linear.in_features, rank, bias=False, **kind),
        nn.Linear(rank, linear.out_features, bias=linear.bias is not None, **kind),
    )


class Convolutions(nn.Sequential):
    """Answers what callers ask a convolution for, like the stride by which some pad its input."""

    def __init__(self, whole, layers):
        super().__init__()
        kind = {{"device": whole.weight.device, "dtype": whole.weight.dtype, "padding_mode": whole.padding_mode}}
        channels = whole.in_channels
        for place, layer in enumerate(layers):
            # Each axis is strided, padded and dilated by the one layer that spans it.
            def own(values, otherwise):
                if isinstance(values, str):
                    return values
                return tuple(v if spans else otherwise for v, spans in zip(values, layer["spans"]))

            kind["bias"] = whole.bias is not None and place + 1 == len(layers)
            shape = (channels, layer["channels"], tuple(layer["kernel_size"]))
            axes = own(whole.stride, 1), own(whole.padding, 0), own(whole.dilation, 1)
            self.append(nn.Conv2d(*shape, *axes, layer["groups"], **kind))
            channels = layer["channels"]
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
            setattr(self, name, getattr(whole, name))

    @property
    def weight(self):
        return self[-1].weight

    @property
    def bias(self):
        return self[-1].bias


class {CLASS}({base}):
    def __init__(self, config):
        super().__init__(config)
        for name, layers in config.low_rank.items():
            parent, _, own = name.rpartition(".")
            parent = self.get_submodule(parent)
            whole = getattr(parent, own)
            if isinstance(layers, int):
                setattr(parent, own, pair(whole, layers))
            elif isinstance(whole, nn.Conv2d) and whole.groups == 1:
                setattr(parent, own, Convolutions(whole, layers))
            else:
                raise ValueError(f"{{name}} is no Conv2d of one group: leave it out when the model is compressed")
"#
    )
}
