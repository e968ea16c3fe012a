"""Why two ways of asking the same prompt differ: how close the call was, beside what bfloat16 makes of it.

Two orders of the same sums round differently, so a token that wins by less than the rounding may lose. A flip is put down
to rounding where the margin in float32, the answer's token against the best other at the token that decides, is not above
`TIMES` times the root mean square of what the run's own dtype changes in the logits there.
"""

from typing import Any

import numpy as np
import torch

TIMES = 3.0


def rows_of(model: Any, ids: Any, num: int) -> torch.Tensor:
    """Logits [num, vocabulary] of the last `num` tokens of a stand-alone prompt, float32."""
    with torch.inference_mode():
        out = model(input_ids=torch.from_numpy(np.ascontiguousarray(ids))[None], use_cache=False, logits_to_keep=num)
    return out.logits[0].float()


def explained(model: Any, exact: Any, prompt: Any, answer: Any) -> dict[str, Any]:
    """The call on `answer` after `prompt` by `model` and by `exact`, the same weights in float32, both stand-alone."""
    ids = np.concatenate([prompt, answer[:-1]])
    rounded, right = (rows_of(one, ids, len(answer)) for one in (model, exact))
    margins = margin(right, answer)
    # What decides is the first token that is lost, or the closest one where all are won.
    lost = np.flatnonzero(margins < 0)
    at = int(lost[0]) if lost.size else int(margins.argmin())
    noise = float((rounded[at] - right[at]).square().mean().sqrt())
    return {
        "at": at, "margin_float32": float(margins[at]), "margin_alone": float(margin(rounded, answer)[at]),
        "rounding": noise, "is_rounding": abs(float(margins[at])) <= TIMES * noise,
    }  # fmt: skip


def parted(model: Any, exact: Any, prompt: Any, mine: int, other: int) -> dict[str, Any]:
    """The call where two continuations part: one goes on with `mine`, the other with `other`, after the same `prompt`."""
    rounded, right = (rows_of(one, prompt, 1)[0] for one in (model, exact))
    gap = float(right[mine] - right[other])
    noise = float((rounded - right).square().mean().sqrt())
    return {
        "margin_float32": gap, "margin_alone": float(rounded[mine] - rounded[other]), "rounding": noise,
        "ranks_float32": [int((right > right[token]).sum()) + 1 for token in (mine, other)],
        "is_rounding": abs(gap) <= TIMES * noise,
    }  # fmt: skip


def margin(rows: torch.Tensor, answer: Any) -> Any:
    """The logit of each token of the answer above the best other's."""
    index = torch.from_numpy(np.ascontiguousarray(answer))[:, None]
    own = rows.gather(1, index)
    return (own - rows.scatter(1, index, -torch.inf).amax(1, keepdim=True))[:, 0].numpy()
