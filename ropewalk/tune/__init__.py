"""Training at a longer length: recipes, the loss without logits, resume, faults, and what is written at the end.

`learner` is the model and its loss as one module, `trainer` drives it with `transformers.Trainer`, `state` is what a killed
run goes on from. A plan is on before the model is built: this room never changes a model's positions.
"""
