"""A chain: several runs of `tune`, each from the folder of the one before. The last writes the folder that was asked for.

    DIR/card.json         the question of the whole chain; `links` names the runs before the last, once they are done
        data/1, 2, ...    the rows of each run, made before the first one begins
        chain/1, 2, ...   what the runs but the last wrote: run folders and full checkpoints, adapters merged
        log.jsonl, ...    the last run's, as of a run alone

Every run is checked before the first begins, on a stand-in for the source that is not there yet: the configuration that the
run before it will leave. A run has an optimizer, a schedule and a watch of its own.

Rows of one kind go on from run to run: the second reads what the first has not. So the old window of every run, which says
which documents are short, is that of the first source: with another one the mix of the same files would be another one.

Given up: carrying an optimizer from one run into the next. Its state is of the parameters that train, which recipes and
merges change, and AdamW's moments are new after 20 to 1,000 steps; a warm-up covers that.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ropewalk.api.chain_changes import LINKS, finished_links, settle_changes
from ropewalk.api.training_data import FOLDER, check_kept_data, is_prepared, prepared, streams_of
from ropewalk.api.training_data import beside as place_beside
from ropewalk.api.training_disk import check_disk
from ropewalk.api.training_finished import done_after, finished_card
from ropewalk.api.training_left import names_of, settle_left, take_away, told_as
from ropewalk.api.training_options import OF_THE_MIX, check_options
from ropewalk.api.training_request import Request
from ropewalk.api.training_run import Beside, asked_for, check_together, run_one
from ropewalk.core.errors import InputError, RopewalkError
from ropewalk.core.output import check_apart, check_out, say_beginning
from ropewalk.core.plurals import counted
from ropewalk.core.record import Card
from ropewalk.core.run import Run, full_disk_is_told


@dataclass(frozen=True, kw_only=True)
class Link:
    """One run of a chain, checked."""

    number: int
    said: Mapping[str, Any]
    asked: Request
    documents: list[dict[str, Any]]


def run_chain(
    source: str | Path, runs: Sequence[Mapping[str, Any]], *, out: str | Path, beside: Beside, force: bool, resume: bool
) -> Card:
    """Trains all runs that are not finished yet; the card of `out`. Raises what `tune` does, with the number of the run."""
    from ropewalk.tune.lowered import settle

    if not runs:
        raise InputError("a chain has no run; give at least one")
    final = check_out(out, force=force, resume=resume, verb="tune")
    rows = _place(final, resume=resume)
    with TemporaryDirectory(prefix="ropewalk-") as scratch:
        links = _checked(source, _apart_merged(runs), Path(scratch), rows, final, beside, resume=resume)
    card = _card(source, links, beside)
    if resume:
        card = settle(final, card, [*(final / LINKS / str(link.number) for link in links[:-1]), final])
    finished = finished_card(final, card) if resume else None
    if finished is not None:
        if rows != final / FOLDER:
            shutil.rmtree(rows, ignore_errors=True)
        done_after(Run(final, finished), links[-1].asked, beside, first=links[0].asked)
        return finished
    if resume:
        card = settle_changes(final, card)
    elif force and finished_links(final):
        beside.progress.say(f"--force removes {len(finished_links(final))} finished runs below {final / LINKS}")
    run = Run.open(final, card, force=force, resume=resume, progress=beside.progress)
    if rows != final / FOLDER and rows.is_dir():
        with full_disk_is_told(final / FOLDER):
            rows.rename(final / FOLDER)
    with _told(run):
        _trained(source, links, run, beside)
    return run.card


def _place(final: Path, *, resume: bool) -> Path:
    """Where the rows are made: inside the run folder once that is there, beside it before."""
    inside = final / FOLDER
    return inside if resume and inside.is_dir() else place_beside(final)


def _apart_merged(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The runs, all but the last with whole weights: the next one trains them."""
    return [{**run, "merge": run.get("recipe", "full") != "full"} for run in runs[:-1]] + [dict(runs[-1])]


# --- before the first step --------------------------------------------------------------------------------------------


def _checked(
    source: str | Path, runs: Sequence[Mapping[str, Any]], scratch: Path, rows: Path, final: Path, beside: Beside, *,
    resume: bool,
) -> list[Link]:  # fmt: skip
    """Every run, checked with its data. First the options of all, which takes no time; then the data."""
    asked = requests(source, runs, scratch, beside, called=final / LINKS)
    check_apart(final, [asked[0].checkpoint.path])
    if not resume:
        for said in runs:
            check_kept_data(final, said["data"], said.get("data_options", {}))
        check_disk(final, asked, force=True)
        settle_left(rows, beside.progress, num_runs=len(runs))
    else:
        say_beginning(final, beside.progress, rows)
    goes_on = resume and rows.is_dir()
    links: list[Link] = []
    try:
        for number, (said, one) in enumerate(zip(runs, asked, strict=True), 1):
            with _in_run(number, len(runs)), beside.progress.task(f"reading the data of run {number}"):
                links.append(_with_data(number, said, one, links, rows, asked[0], beside, resume=resume))
    except RopewalkError as error:
        if error.exit_code == 2 and not goes_on:
            take_away(rows, beside.progress)
        raise
    return links


def requests(
    source: str | Path, runs: Sequence[Mapping[str, Any]], scratch: Path, beside: Beside, *, called: Path
) -> list[Request]:
    """The options of every run, checked: the later ones against what the run before them will leave, in `scratch`.

    A message calls these folders by the names that they will have in `called`.
    """
    asked: list[Request] = []
    for number, said in enumerate(runs, 1):
        with _in_run(number, len(runs), {scratch: called}):
            here = source if number == 1 else scratch / str(number - 1)
            asked.append(asked_for(here, said, beside=beside, stand_in=number > 1))
            if number < len(runs):
                _write_stand_in(asked[-1], scratch / str(number))
    return asked


def _write_stand_in(asked: Request, out: Path) -> None:
    """The configuration that a run will leave, its last step tuned, and no weights: the next run is checked against it."""
    from ropewalk.engines.transformers import block
    from ropewalk.hosts import folder

    folder.write_start(asked.checkpoint, asked.plan, out, length=asked.settings.length, geometry=asked.start)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    if block.find(config) is not None:
        config[block.KEY]["steps"][-1]["tuned"] = True
        (out / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _with_data(
    number: int, said: Mapping[str, Any], asked: Request, before: Sequence[Link], rows: Path, first: Request,
    beside: Beside, *, resume: bool,
) -> Link:  # fmt: skip
    """The run with its rows made, by tokenizer and old window of the first. What was tokenized for an earlier run is not
    tokenized again."""
    given, options = said["data"], said.get("data_options", {})
    check_options(given, options)
    tokenizer, old_window = first.checkpoint.path, first.reads.window_length
    if callable(given) or is_prepared(given):
        made, names = given, ""
    else:
        made = rows / str(number)
        _linked(number, given, options, before, rows)
        prepared(
            given, tokenizer, asked.settings, old_window, made, options=options, resume=resume, progress=beside.progress,
            chain=True,
        )  # fmt: skip
        names, options = names_of(given, options), {}
    with told_as(rows / str(number), names):
        found = streams_of(
            made, tokenizer, asked.settings, old_window, options=options, progress=beside.progress, apart=asked.apart,
            before=_read(before),
        )  # fmt: skip
    check_together(asked, found.streams, beside.progress)
    return Link(number=number, said=said, asked=asked, documents=found.documents)


def _read(links: Sequence[Link]) -> Any:
    """What these runs read, so that the next one goes on behind it."""
    from ropewalk.tune.batches import Before

    before = Before()
    for link in links:
        given = link.said["data"]
        source = given if callable(given) else link.documents[0]["sha256"]
        before = before.then(source, link.asked.settings, apart=link.asked.apart)
    return before


def _linked(number: int, given: Any, options: Mapping[str, Any], before: Sequence[Link], rows: Path) -> None:
    """Tokens of the same files, tokenized the same way for an earlier run, as links."""
    place = rows / str(number)
    for link in before:
        was = {key: value for key, value in link.said.get("data_options", {}).items() if key not in OF_THE_MIX}
        now = {key: value for key, value in options.items() if key not in OF_THE_MIX}
        known = rows / str(link.number)
        if link.said["data"] == given and was == now and known.is_dir() and not place.exists():
            with full_disk_is_told(place):
                shutil.copytree(known, place, copy_function=_link)
            return


def _link(source: str, target: str) -> None:
    """A hard link where the file system has them. What is replaced later is replaced whole, so the other keeps its own."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _in_run(number: int, count: int, names: Mapping[Path, Path] | None = None) -> Iterator[None]:
    """Says which run an error is of, and calls a stand-in by the name of what it stands for."""
    try:
        yield
    except RopewalkError as error:
        text = str(error)
        for scratch, true in (names or {}).items():
            text = text.replace(str(scratch), str(true))
        error.args = (f"run {number} of {count}: {text}",)
        raise


def _card(source: str | Path, links: Sequence[Link], beside: Beside) -> Card:
    """The question of the chain: the last run's, with the source of the first and what each of them was asked."""
    first, last = links[0].asked, links[-1].asked
    documents = [{**document, "run": link.number} for link in links for document in link.documents]
    card = replace(last, source=source, checkpoint=first.checkpoint).card(documents)
    asked = [{**link.asked.config, "source": None, "method": link.asked.method} for link in links]
    card.config = {**card.config, "source": str(source), "runs": asked}
    card.geometry = first.start.to_dict()
    card.plans = {}
    for link in links:
        if link.asked.plan is not None:
            plan = link.asked.plan
            card.plans[plan.method if link is links[-1] else f"run {link.number}: {plan.method}"] = plan.to_dict()
    card.findings = [finding for link in links for finding in link.asked.findings(f"run {link.number}")]
    return card


# --- the runs ---------------------------------------------------------------------------------------------------------


def _trained(source: str | Path, links: Sequence[Link], run: Run, beside: Beside) -> None:
    here: str | Path = source
    for link in links:
        last = link is links[-1]
        out = run.path if last else run.path / LINKS / str(link.number)
        options = dict(link.said)
        if not (callable(options["data"]) or is_prepared(options["data"])):
            options["data"] = run.path / FOLDER / str(link.number)
            options.pop("data_options", None)
        done = any(one["run"] == link.number for one in run.card.links)
        words = "finished" if done else f"{_words(link.asked)}, to {out}"
        beside.progress.say(f"run {link.number} of {len(links)}: {words}")
        with _in_run(link.number, len(links)):
            around = beside if last else beside.of_a_link()
            card = run_one(
                here, options, out=out, beside=around, resume=True, opened=run if last else None,
                before=_read(links[: link.number - 1]), old_window=links[0].asked.reads.window_length,
            )  # fmt: skip
        if not last:
            others = [one for one in run.card.links if one["run"] != link.number]
            run.card.links = [*others, _told_link(link, card, out, here)]
            run.save_card()
        here = out


def _words(asked: Request) -> str:
    rows = " then ".join(f"{counted(stage.steps, 'step')} on rows of {stage.window}" for stage in asked.settings.stages)
    return f"{asked.method or 'the positions it has'} at {asked.settings.length} tokens, {asked.settings.recipe}, {rows}"


def _told_link(link: Link, card: Card, out: Path, source: str | Path) -> dict[str, Any]:
    """What the last folder says of a run before it: source, plan, data, steps, and which weights came of it."""
    from ropewalk.hosts import folder
    from ropewalk.hosts.folder.fingerprint import fingerprint
    from ropewalk.tune.callbacks import steps_told
    from ropewalk.tune.run import LOG

    return {
        "run": link.number,
        "out": f"{LINKS}/{link.number}",
        "source": str(source) if link.number == 1 else f"{LINKS}/{link.number - 1}",
        "method": link.asked.method,
        "length": link.asked.settings.length,
        "recipe": link.asked.settings.recipe,
        # Fewer than were asked for where a callback stopped it.
        "steps": max((line["step"] for line in steps_told(out / LOG, link.asked.settings.steps)), default=0),
        "documents": link.documents,
        "card": card.hash,
        "fingerprint": fingerprint(folder.open_checkpoint(out)),
    }


@contextmanager
def _told(run: Run) -> Iterator[None]:
    """The chain's card says how it ended, in whichever run."""
    try:
        yield
    except BaseException as error:
        run.save_card("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
