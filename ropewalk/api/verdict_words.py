"""Verdicts in words, for a terminal: the table of `verify`, and what `extend` says of the checkpoint that it wrote."""

from ropewalk.engines.verdicts import Verdict, Verification


def table(verification: Verification) -> str:
    """The verdicts and findings for a terminal, the sum of them last."""
    plan = verification.reference
    lines = []
    if plan is not None:
        lines.append(f"reference: {verification.source}, {plan.kind}, {plan.length} tokens")
    width = max(len(name) for name in ("engine", *(verdict.engine for verdict in verification.verdicts)))
    lines.append(f"{'engine':<{width}}  {'verdict':<11}  {'rel. error':<10}  {'tokens':<8}  release")
    said: dict[tuple[str, str], str] = {}
    for verdict in verification.verdicts:
        error = "-" if verdict.max_relative_error is None else f"{verdict.max_relative_error:.2g}"
        longest = "-" if verdict.max_length is None else str(verdict.max_length)
        release = f"{verdict.how} {verdict.version}".rstrip()
        lines.append(f"{verdict.engine:<{width}}  {verdict.status:<11}  {error:<10}  {longest:<8}  {release}")
        lines += [f"{'':<{width}}  {text}" for text in _words(verdict, said)]
    for finding in verification.findings:
        lines.append(f"{finding.severity}: {finding.field}: {finding.problem}; {finding.mend}")
    return "\n".join([*lines, summary(verification)])


def _words(verdict: Verdict, said: dict[tuple[str, str], str]) -> list[str]:
    """Why and what to do; of an engine that was said to do the same before, only which one."""
    words = (verdict.reason, verdict.mend and f"mend: {verdict.mend}")
    first = said.setdefault(words, verdict.engine)
    if first != verdict.engine and any(words):
        return [f"as {first}"]
    before = verdict.read
    read = (
        []
        if before is None or before.status == verdict.status
        else [f"its source ({before.version}) reads: {before.status}"]
    )
    return [text for text in (*words, *read) if text]


def summary(verification: Verification) -> str:
    """One line: which engines compute the reference, and which do not."""
    by_status: dict[str, list[str]] = {}
    for verdict in verification.verdicts:
        by_status.setdefault(verdict.status, []).append(verdict.engine)
    words = {"exact": "exact in", "differs": "differs in", "refuses": "refused by", "unsupported": "not judged in"}
    parts = [f"{said} {', '.join(by_status[status])}" for status, said in words.items() if status in by_status]
    wrong = [finding for finding in verification.findings if finding.severity == "error"]
    if wrong:
        parts.append("fails for 1 finding that is an error" if len(wrong) == 1 else f"fails for {len(wrong)} errors found")
    named = [v.engine for v in verification.verdicts if v.status == "unsupported" and v.engine in verification.named]
    if named:
        parts.append(f"fails for {', '.join(named)}, which was asked for by name")
    return "; ".join(parts)


def notes(verification: Verification) -> list[str]:
    """What is told of a checkpoint that was just written: one line for all exact engines, one for each that is not."""
    exact = [verdict.engine for verdict in verification.verdicts if verdict.status == "exact"]
    said = f"exact in {', '.join(exact)}, as their sources were read; ropewalk verify --execute runs what is installed"
    off = [verdict for verdict in verification.verdicts if verdict.status in ("differs", "refuses")]
    return [said] * bool(exact) + [f"{one.engine} {one.status}: {one.reason}; {one.mend}" for one in off]
