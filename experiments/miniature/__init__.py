"""The published claims in miniature, table by table, on models trained from scratch at 512 tokens and stretched to 4,096.

    python -m experiments.miniature TABLE [--seeds 0,1,2] [--out runs/miniature] [--size full|toy] [--table-only]

`corpus` makes the texts, `base` the models, `cells` everything that is trained or read once and kept, `tables` and `arms`
what is asked, `intervals` what the figures are worth, `page` and `plots` what is written of it.
"""
