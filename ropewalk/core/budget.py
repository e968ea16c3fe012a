"""The bytes of a training step, by arithmetic: weights, gradients, optimizer, kept activations, one layer's work.

Symbols: T tokens of one forward pass (rows times window), h hidden, f intermediate, q and k the widths of queries and keys
(heads times their size), V vocabulary, L layers, a bytes of an activation (4, or 2 under autocast), r bytes of the residual
stream (4: a sum of float32 and bfloat16 is float32; 2 where a base in bfloat16 has its embeddings and norms frozen).

- A layer keeps for its backward pass, elements of a token: its input, the first norm's quotient and result (3h), rotated
  queries and the attention's output (2q), rotated keys and values (2k), the same three of the second norm (3h), and of a
  gated MLP the gate before and after its function, the other branch, and their product (4f; without a gate 2f). With
  q = h this is Korthikanti et al.'s count (arXiv:2205.05198, section 4.1) redone for a Llama block with fused attention.
  What only a frozen weight would need is not kept: its input (MLP) and the norm's quotient. Norms work in float32 whatever
  the residual stream is; where it is bfloat16 their inputs are kept in place of the layer's.
- A checkpointed layer keeps its input alone, h, or offloaded nothing on its device; with selective checkpointing also the
  attention's output and its log-sum-exp, q + heads. Its backward pass first makes all of the above.
- On top of it, in the MLP's backward pass, where most is held: gradients of product and both branches less the product (2f),
  of the residual stream (h), and of one weight (hf).
- Going backward from the last layer, kept tensors go and gradients of weights come, so the peak is the largest sum over the
  layers; it is at the last layer for long rows, T h > parameters of a layer, and at the first for short ones.
- The head: its input apart from ignored tokens (h), that input's gradient (h), the weight's gradient (V h) and one chunk of
  logits, never T V.
- The optimizer, from the first step on: AdamW's two moments are 8 bytes for each trained parameter.

Given up: mixtures of experts, recurrent layers, several devices, quantised bases, what an allocator wastes, and the process
itself before the model (`RUNTIME`). The tests hold the sum to peaks that were counted allocation by allocation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

GIGABYTE = 10**9
"""What GB means everywhere, as disks and memory counters of others have it; 2^30 bytes are GiB."""
CHUNK_BYTES = 64 * 1024 * 1024
"""Float32 logits that our loop over the head holds at one time: 340 rows of a 49k vocabulary."""
RUNTIME = 450 * 1024 * 1024
"""What a process takes before the model: Python and libraries, as measured with torch 2.13 on a CPU."""
LONGEST_TRIED = 2**28


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a dense transformer."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    query: int
    """Width of all queries of a token: heads times their size."""
    key: int
    """Width of all keys of a token."""
    vocabulary: int
    tied: bool
    """Whether the head is the embedding."""
    gated: bool = True
    """Whether the MLP has a gate, as in Llama."""

    @property
    def layer_parameters(self) -> int:
        """Weights of a layer; biases and norms of heads are left out, being below a thousandth."""
        mlp = (3 if self.gated else 2) * self.hidden * self.intermediate
        return 2 * self.hidden * self.query + 2 * self.hidden * self.key + mlp + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, or of the head."""
        return self.vocabulary * self.hidden

    @property
    def num_parameters(self) -> int:
        """All weights, tied ones once."""
        return self.num_layers * self.layer_parameters + (1 if self.tied else 2) * self.embedding_parameters + self.hidden


@dataclass(frozen=True, kw_only=True)
class Training:
    """What of a run decides its bytes."""

    recipe: str = "full"
    """`full`; `lora`: adapters alone; any other: adapters with embeddings and norms."""
    rank: int = 8
    """With `lora`, 0 counts the frozen base alone: what adapters of any kind take at least."""
    half: bool = False
    """Products in bfloat16 by autocast; adapters then stand on a base that is held in bfloat16."""
    checkpoint_every: int = 1
    """Every so manieth layer is checkpointed, the first one first; 0 checkpoints none."""
    selective: bool = False
    """Checkpointed layers keep their attention's output."""
    accumulated: bool = False
    """Whether a pass finds the gradients of another one before it."""
    offload: bool = False
    """The inputs of checkpointed layers wait in main memory, which is another than the device's."""
    optimizer_bytes: int = 8
    """What the optimizer keeps for a trained parameter."""

    def checkpoints(self, layer: int) -> bool:
        """Whether a layer, counted from 0, is checkpointed."""
        return bool(self.checkpoint_every) and layer % self.checkpoint_every == 0

    @property
    def residual_bytes(self) -> int:
        """Bytes of a number of the residual stream: a norm or an embedding that trains is float32, and so is all after."""
        return 2 if self.half and self.recipe == "lora" else 4


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of a step where most is held."""

    parameters: int
    optimizer: int
    gradients: int
    """Of weights, those that are there at the peak."""
    kept: int
    """Activations kept for the backward pass."""
    work: int
    """What one layer, or the head, makes and gives back."""
    runtime: int = RUNTIME

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.optimizer + self.gradients + self.kept + self.work + self.runtime

    def words(self) -> str:
        """The parts in gigabytes, in words."""
        parts = {
            "weights": self.parameters, "optimizer": self.optimizer, "gradients": self.gradients,
            "kept activations": self.kept, "one layer's work": self.work, "the process": self.runtime,
        }  # fmt: skip
        return ", ".join(f"{name} {value / GIGABYTE:.1f}" for name, value in parts.items())


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Trained and all parameters of the three places that a recipe tells apart, and bytes of a weight."""

    layer: int
    """Trained parameters of a layer."""
    ends: int
    """Trained parameters of embedding, head and last norm."""
    held: int
    """Bytes of all weights."""


def parts(sizes: Sizes, training: Training) -> Parts:
    """What trains and what is held. Adapters are on queries, keys, values and the output, r (in + out) each."""
    ends = (1 if sizes.tied else 2) * sizes.embedding_parameters
    if training.recipe == "full":
        return Parts(layer=sizes.layer_parameters, ends=ends + sizes.hidden, held=4 * sizes.num_parameters)
    adapters = training.rank * (4 * sizes.hidden + 2 * sizes.query + 2 * sizes.key)
    base = (2 if training.half else 4) * sizes.num_parameters
    if training.recipe == "lora":
        return Parts(layer=adapters, ends=0, held=base + 4 * sizes.num_layers * adapters)
    # PEFT trains a copy of each whole module and keeps the original.
    layer = adapters + 2 * sizes.hidden
    ends += sizes.hidden
    return Parts(layer=layer, ends=ends, held=base + 4 * (sizes.num_layers * layer + ends))


def layer_bytes(sizes: Sizes, training: Training) -> tuple[int, int]:
    """Bytes of a token that a layer keeps for its backward pass, and those that the pass makes on top."""
    wide, narrow = 4, 2 if training.half else 4
    stream = training.residual_bytes
    full, norms = training.recipe == "full", training.recipe != "lora"
    residual = 2 + (2 if norms else 0)
    # Results of norms that linear layers read: one of each norm; under autocast each reader keeps its own cast.
    # An adapter reads as well, and that of the output keeps a cast of attention's output.
    adapted = not full and training.rank > 0
    inputs = (3 if training.half else 1) * (full or adapted) + ((2 if training.half else 1) if full else 0)
    outputs = 3 if training.half and adapted else 2
    branches = (3 if sizes.gated else 1) + (1 if full else 0)
    kept = wide * residual * sizes.hidden + narrow * (
        inputs * sizes.hidden + outputs * sizes.query + 2 * sizes.key + branches * sizes.intermediate
    )
    # Where the product is not kept, none of it goes before its branches' gradients come.
    more = (2 if sizes.gated else 1) + (0 if full else 1)
    return kept + 4 * sizes.num_heads, narrow * more * sizes.intermediate + stream * sizes.hidden


def budget(sizes: Sizes, training: Training, tokens: int, *, runtime: int = RUNTIME) -> Budget:
    """The bytes of a step with `tokens` in each forward pass, at its peak, from the second step on."""
    counted = parts(sizes, training)
    trained = sizes.num_layers * counted.layer + counted.ends
    whole = 4 * trained
    saved, more = layer_bytes(sizes, training)
    stream = training.residual_bytes * sizes.hidden
    # The input of a checkpointed layer is what its first norm keeps, where both are float32; offloaded it comes back for it.
    shared = stream if training.residual_bytes == 4 else 0
    back = stream if training.offload else 0
    outputs = (2 if training.half else 4) * sizes.query + 4 * sizes.num_heads
    own = (0 if training.offload else stream) + (outputs if training.selective else 0)
    # Cosines and sines, and four integers of a token, stay the whole time.
    always = tokens * (8 * max(1, sizes.query // sizes.num_heads) + 32)
    full = training.recipe == "full"
    # Autocast's copies of a layer's weights, and a gradient of one of them in flight.
    copies = 2 * sizes.layer_parameters if training.half and full else 0
    flying = copies + (4 * sizes.hidden * sizes.intermediate if full else 0)
    head_grads = 4 * (sizes.embedding_parameters if counted.ends else 0)
    moments = [(head_grads if not training.accumulated else whole, always, _head(sizes, training, tokens))]
    below = 0
    for layer in range(sizes.num_layers):
        checkpointed = training.checkpoints(layer)
        after = 4 * counted.layer * (sizes.num_layers - 1 - layer) + head_grads
        again = saved - shared + back if checkpointed else 0
        below += tokens * own if checkpointed else tokens * saved + copies
        work = tokens * (again + more) + flying
        moments.append((whole if training.accumulated else after, below + always, work))
    # The head runs while everything is kept; the embedding's own gradient is made last, beside a tied head's.
    moments[0] = (moments[0][0], below + always, moments[0][2])
    moments.append((whole, always, 4 * sizes.embedding_parameters if counted.ends else 0))
    gradients, kept, work = max(moments, key=sum)
    return Budget(
        parameters=counted.held, optimizer=training.optimizer_bytes * trained, gradients=gradients, kept=kept, work=work,
        runtime=runtime,
    )  # fmt: skip


def _head(sizes: Sizes, training: Training, tokens: int) -> int:
    """The last norm and the chunked loss, without the gradient of its weight, which is counted as one: hidden states and
    their gradient, logits of a chunk, their logarithms and gradient, and what the chunk adds to the weight's gradient."""
    chunk = min(CHUNK_BYTES, 4 * tokens * sizes.vocabulary)
    if training.half and training.recipe == "lora":
        # Hidden states come in bfloat16.
        return tokens * sizes.hidden * (4 + 3 * 2) + 3 * chunk
    whole = 0 if training.recipe == "lora" else 4 * sizes.embedding_parameters
    # Autocast keeps a copy of every weight until the loss is made.
    copies = 2 * sizes.num_layers * sizes.layer_parameters if training.half and training.recipe == "full" else 0
    # The loss multiplies by one of its own.
    copies += 2 * sizes.embedding_parameters if training.half and whole else 0
    return 4 * tokens * sizes.hidden * 5 + max(3 * chunk, chunk + whole) + copies


def longest(limit: int, need: Callable[[int], int], *, step: int = 1) -> int:
    """The largest multiple of `step` whose need in bytes is within `limit`; 0 where none is. Needs rise with tokens."""
    low, high = 0, 1
    while high * step <= LONGEST_TRIED and need(high * step) <= limit:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if need(middle * step) <= limit else (low, middle)
    return low * step


def tokens_within(limit: int, sizes: Sizes, training: Training, *, step: int = 1024) -> int:
    """The most tokens of one forward pass that fit into `limit` bytes."""
    return longest(limit, lambda tokens: budget(sizes, training, tokens).total, step=step)


def without_runtime(found: Budget) -> Budget:
    """The same without the process itself: what an allocator would count."""
    return replace(found, runtime=0)
