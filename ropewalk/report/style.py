"""The page's style sheet: light, dark and paper. The colours of a theme are the page's and its pictures' alike."""

from dataclasses import fields

from ropewalk.report.theme import DARK, LIGHT, Theme


def variables(theme: Theme) -> str:
    """A theme's colours as CSS variables."""
    return " ".join(f"--{field.name}: {getattr(theme, field.name)};" for field in fields(Theme) if field.name != "name")


COLOURS = f"""
:root {{
  {variables(LIGHT)}
  --line: #dfe3e8; --page: #f6f7f8; --accent: #0b5c8f; --warn-ink: #6b3d00; --warn: #fff3dc;
}}
@media screen and (prefers-color-scheme: dark) {{
  :root {{
    {variables(DARK)}
    --line: #323942; --page: #0f1115; --accent: #7cc4f0; --warn-ink: #ffd99a; --warn: #3a2a0c;
  }}
}}
"""
STYLE = (
    COLOURS.rstrip()
    + """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding: 2.5rem 0 0.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; line-height: 1.3; margin: 0 0 0.8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.5rem; }
.provenance { color: var(--muted); margin: 0.5rem 0 0; overflow-wrap: anywhere; }
section {
  background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 1.3rem 1.4rem; margin: 1.2rem 0;
}
.banner {
  background: var(--warn); color: var(--warn-ink); border-radius: 10px; padding: 0.9rem 1.2rem; margin: 1rem 0;
  font-weight: 600;
}
.lead { font-size: 1.2rem; line-height: 1.45; margin: 0 0 0.7rem; }
.second { margin: 0 0 0.7rem; }
section ul { list-style: none; padding: 0; margin: 1rem 0 0; }
section li { margin: 0.8rem 0; padding-left: 0.9rem; border-left: 3px solid var(--line); overflow-wrap: anywhere; }
section li p { margin: 0.1rem 0; font-size: 0.95rem; }
.note, figcaption, .absent { color: var(--muted); font-size: 0.92rem; margin: 0.8rem 0 0; max-width: 56rem; }
figure { margin: 0; }
.picture svg { display: block; max-width: 100%; height: auto; margin: 0 auto; }
.picture svg { font-family: "DejaVu Sans", Verdana, sans-serif; }
.picture svg * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; font-variant-numeric: tabular-nums; min-width: 60%; }
caption { text-align: left; color: var(--muted); padding: 0 0 0.4rem; }
th, td { padding: 0.34rem 0.9rem 0.34rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; }
#headline td { white-space: pre; }
#headline thead th { max-width: 6.6rem; }
#headline table { font-size: 0.84rem; }
#headline th, #headline td { padding-right: 0.65rem; }
#run td, #findings td { overflow-wrap: break-word; max-width: 44rem; }
details { margin-top: 0.9rem; }
summary { cursor: pointer; color: var(--accent); font-size: 0.92rem; }
details .scroll { max-height: 26rem; overflow: auto; margin-top: 0.6rem; }
dt { font-weight: 600; margin-top: 0.6rem; }
dd { margin: 0.1rem 0 0; }
dl { margin: 0; }
footer { color: var(--muted); font-size: 0.85rem; padding-bottom: 2.5rem; }
@media (max-width: 44rem) {
  .picture { overflow-x: auto; }
  .picture svg { max-width: none; width: 44rem; }
}
@media print {
  body { background: none; font-size: 10.5pt; }
  section { border: 0; padding: 0; margin: 0 0 1.4rem; border-radius: 0; }
  figure, tr, .lead, #headline { break-inside: avoid; }
  h2 { break-after: avoid; }
  details:not([open]) { display: none; }
  .scroll { overflow: visible; }
  .picture svg { max-height: 23cm; width: auto; }
  #headline table { font-size: 7.6pt; }
}
"""
)
