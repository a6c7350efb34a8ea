"""How many floating-point operations a training step takes, by counting its matrix products, and what share of a GPU's
peak that is.
"""

from __future__ import annotations

# dense bf16 peak in FLOP/s by a part of the device's name, from the makers' data sheets (without sparsity); the first
# match counts
PEAKS = (
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("L40S", 362e12),
    ("L4", 121e12),
    ("RTX 4090", 165e12),
    ("RTX 3090", 71e12),
)


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by its name, or None when it is not in the table (a T4 is not: it has no bf16)."""
    words = device_name.replace("-", " ").split()
    return next((peak for name, peak in PEAKS if all(word in words for word in name.split())), None)


def forward_flops(denoiser, batch_size: int, length: int, source_width: int, masked: int) -> float:
    """The operations of one forward pass of a ``BertDenoiser``: a product of [m, k] and [k, n] counts 2 m k n.

    batch_size x length places go through the encoder, padding included, since it is computed too; the vocabulary head
    sees the ``masked`` places only; the copy head has a key per source place and scores of all places against it. Time
    embedding, normalisation and softmax are left out, and so is what the last layer of a training step on a CPU leaves
    out.
    """
    config = denoiser.bert_config
    width, inner, layers = config.hidden_size, getattr(config, denoiser.family.inner_size), config.num_hidden_layers

    def encoder(places: int) -> float:
        # query, key, value and output; the two layers of the feed-forward network; scores and their mean of the values
        return layers * batch_size * (places * (8 * width**2 + 4 * width * inner) + 4 * places**2 * width)

    total = encoder(length + (denoiser.timestep == "prefix"))
    if denoiser.attention == "full":
        total += encoder(source_width)  # the length's own pass over the source
    total += masked * (2 * width**2 + 2 * width * config.vocab_size)
    if denoiser.copy_head is not None:
        total += (
            masked * 2 * (width**2 + width)
            + batch_size * source_width * 2 * width**2
            + batch_size * length * source_width * 2 * width
        )
    return total + batch_size * 2 * width * denoiser.max_target_length


def training_flops(denoiser, batch_size: int, length: int, source_width: int, masked: int) -> float:
    """The operations of a forward and a backward pass, which has two products for each of the forward's. (A first pass
    of self-conditioning is not counted.)
    """
    return 3 * forward_flops(denoiser, batch_size, length, source_width, masked)


def product_shapes(denoiser, rows: int = 512) -> tuple[tuple[int, int, int], ...]:
    """The products that most of a step of this denoiser consists of, [m, k] x [k, n] as (m, k, n), for so many rows."""
    config = denoiser.bert_config
    width, inner = config.hidden_size, getattr(config, denoiser.family.inner_size)
    vocabulary = min(config.vocab_size, 4096)  # a part of the head's columns runs as fast as all
    return (rows, width, inner), (rows, inner, width), (rows, width, width), (rows // 4, width, vocabulary)
