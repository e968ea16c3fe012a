"""What every recipe trains and leaves, in words: for `tune --recipe help`. The page docs/tune.md says more of each."""

ADAPTER = "an adapter folder"
RECIPES_TOLD = {
    "full": ("all weights", "a checkpoint"),
    "longlora": ("LoRA on attention's q, k, v, o, and embeddings and norms whole", ADAPTER),
    "lora": ("LoRA on attention's q, k, v, o alone, which hardly learns a longer context", ADAPTER),
    "qlora": ("as longlora, on a base held in 4 bits (CUDA, bitsandbytes)", ADAPTER),
    "dora": ("LoRA with magnitudes apart, on the same layers", ADAPTER),
    "rslora": ("LoRA scaled by the root of its rank, on the same layers", ADAPTER),
    "loha": ("Hadamard products of low rank, on the same layers", ADAPTER),
    "lokr": ("Kronecker products of low rank, on the same layers", ADAPTER),
    "vera": ("vectors on shared random matrices, on the same layers", ADAPTER),
    "oft": ("rotations of the weights, on the same layers", ADAPTER),
    "ia3": ("a scale for each output, on the same layers; it takes larger learning rates", ADAPTER),
    "prefix": ("keys and values of --num-virtual-tokens places before every text", ADAPTER),
}
"""A recipe, what of a model it trains, and what it leaves."""
