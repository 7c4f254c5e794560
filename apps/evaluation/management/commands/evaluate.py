"""`manage.py evaluate PATH...`: how good the search is on labelled sets."""

from __future__ import annotations

import json
from argparse import RawDescriptionHelpFormatter
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from tqdm import tqdm  # type: ignore[import-untyped]

from apps.access import tenancy
from apps.access.models import Tenant
from apps.access.problems import Problem
from apps.documents.embedding import EmbeddingError
from apps.documents.models import Collection
from apps.evaluation import corpus, exact, sets
from apps.evaluation.judge import MAX_K, MODES, judge
from apps.evaluation.metrics import mean, measure
from apps.evaluation.types import Judged, LabelledSet, Question
from apps.retrieval.expand import MOST


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one set, in one language, searched in one mode. milliseconds: of a search, their median."""

    set: str
    language: str
    mode: str
    documents: int
    queries: int
    of_queries: int  # before sampling
    metrics: dict[str, float]
    milliseconds: float


class Command(BaseCommand):
    help = """Measure the search on labelled sets: P@k, recall@k, MRR and nDCG@k.

PATH is a folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels.tsv (docs/howto/evaluate.md).
Its documents go into a collection of its own, eval-<folder>, and stay there: a second run embeds nothing.
With --gate it ends with status 1 where a metric of any row is below what it should be."""

    def create_parser(self, *args: Any, **kwargs: Any) -> CommandParser:
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **kwargs)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("paths", type=Path, nargs="+", metavar="PATH")
        parser.add_argument("--collection", default="", metavar="SLUG", help="in place of eval-<folder>, for one PATH")
        parser.add_argument("--modes", default=",".join(MODES), metavar="M,...", help="default: %(default)s")
        parser.add_argument("--k", type=int, default=10, help=f"documents looked at, at most {MAX_K} (default 10)")
        parser.add_argument("--queries", type=int, metavar="N", help="a sample of each set and language")
        parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
        parser.add_argument("--languages", metavar="L,...", help="only these, such as de,fr")
        parser.add_argument("--exact", action="store_true", help="compare dense search with a scan of all vectors")
        parser.add_argument("--rerank", action="store_true", help="searches are reranked (RERANK_URL)")
        parser.add_argument("--diversify", type=float, default=0.0, metavar="0..1", help="and diversified")
        parser.add_argument("--expand", type=int, default=0, metavar="N", help="and widened by N neighbours")
        parser.add_argument("--json", type=Path, metavar="FILE", help="the results, and those of each query")
        parser.add_argument("--gate", default="", metavar="METRIC=MIN,...", help="such as P@5=0.6,recall@10=0.8")
        parser.add_argument("--space", metavar="SLUG", help="embedding space of collections that are made")
        parser.add_argument("--tenant", default=tenancy.DEFAULT_TENANT, metavar="SLUG")

    def handle(self, *args: Any, **options: Any) -> None:
        self.k, self.seed, self.size = options["k"], options["seed"], options["queries"]
        if not 1 <= self.k <= MAX_K or (self.size is not None and self.size < 1):
            raise CommandError(f"--k is 1 to {MAX_K}, --queries at least 1.")
        self.modes = options["modes"].split(",")
        if unknown := set(self.modes) - set(MODES):
            raise CommandError(f"--modes: {min(unknown)!r} is none of {', '.join(MODES)}.")
        self.columns = [*measure((), {"-": 1}, self.k), f"answer@{self.k}", f"span@{self.k}"]
        gate = self._gate(options["gate"])
        if options["collection"] and len(options["paths"]) > 1:
            raise CommandError("--collection is for one PATH.")
        if options["exact"] and "dense" not in self.modes:
            raise CommandError("--exact is about dense search: name it in --modes.")
        self.options = {name: options[name] for name in ("rerank", "diversify", "expand")}
        if not (0 <= options["diversify"] <= 1 and 0 <= options["expand"] <= MOST):
            raise CommandError(f"--diversify is 0 to 1, --expand 0 to {MOST}.")
        self.tenant_id = _tenant(options["tenant"])
        self.rows: list[Row] = []
        self.each: list[dict[str, Any]] = []
        self.failures: list[str] = []
        try:
            for labelled in _read(options["paths"], options["languages"]):
                self._evaluate(labelled, options["collection"], options["space"], exactly=options["exact"])
        except (Problem, EmbeddingError) as error:
            raise CommandError(str(getattr(error, "sentence", error)))
        self._means()
        if options["json"]:
            self._write(options["json"])
        self._hold(gate)

    def _gate(self, text: str) -> dict[str, float]:
        """{metric: the least it may be}. Raises CommandError."""
        found = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            try:
                found[name] = float(value)
            except ValueError:
                raise CommandError(f"--gate: {part!r} is no METRIC=MIN.")
            if name not in self.columns:
                raise CommandError(f"--gate: {name!r} is none of {', '.join(self.columns)}.")
        return found

    def _evaluate(self, labelled: LabelledSet, name: str, space: str | None, *, exactly: bool) -> None:
        title = f"{labelled.name} {labelled.language}".strip()
        slug = corpus.slug_for(labelled, name)
        with tqdm(total=len(labelled.pages), desc=f"{title}: documents", disable=None) as bar:
            collection = corpus.load(labelled, tenant_id=self.tenant_id, slug=slug, space=space, told=bar.update)
        questions = labelled.questions
        if self.size is not None:
            questions = sets.sample(questions, size=self.size, seed=self.seed)
        for mode in self.modes:
            judged = [
                judge(tenant_id=self.tenant_id, collection=slug, question=question, mode=mode, k=self.k, **self.options)
                for question in tqdm(questions, desc=f"{title}: {mode}", disable=None)
            ]
            self._add(labelled, mode, judged)
            if exactly and mode == "dense":
                self._compare(labelled, collection, questions, judged)

    def _add(self, labelled: LabelledSet, mode: str, judged: list[Judged]) -> Row:
        if not self.rows:
            if self.size is not None:
                self.stdout.write(f"At most {self.size} queries of each, drawn with the seed {self.seed}.")
            if any(self.options.values()):
                asked = ", ".join(f"{name} {value}" for name, value in self.options.items() if value)
                self.stdout.write(f"Searches with {asked}.")
            self._line("set", "lang", "mode", "queries", self.columns, "ms")
        row = Row(
            set=labelled.name,
            language=labelled.language,
            mode=mode,
            documents=len(labelled.pages),
            queries=len(judged),
            of_queries=len(labelled.questions),
            metrics=mean([each.metrics for each in judged]),
            milliseconds=round(median(each.milliseconds for each in judged), 2),
        )
        self.rows.append(row)
        self.each += [
            {"set": row.set, "language": row.language, "mode": mode, "query": each.question.id}
            | {"metrics": each.metrics, "ranked": each.ranked}
            for each in judged
        ]
        asked = f"{row.queries}" if row.queries == row.of_queries else f"{row.queries}/{row.of_queries}"
        self._line(row.set, row.language, mode, asked, self._numbers(row.metrics), f"{row.milliseconds:.1f}")
        return row

    def _compare(
        self, labelled: LabelledSet, collection: Collection, questions: list[Question], dense: list[Judged]
    ) -> None:
        """Dense search, which may go through an index, with a scan of the same vectors."""
        row = self._add(labelled, "exact", exact.judge_exactly(collection=collection, questions=questions, k=self.k))
        name = f"nDCG@{self.k}"
        lost = row.metrics[name] - mean([each.metrics for each in dense])[name]
        self.stdout.write(f"  dense search is {lost:.4f} {name} below an exact scan")
        if abs(lost) > exact.TOLERANCE:
            self.failures.append(f"{labelled.name}: dense differs from exact by {lost:.4f}, at most {exact.TOLERANCE}")

    def _means(self) -> None:
        """Over sets and languages, each counting once."""
        for mode in dict.fromkeys(row.mode for row in self.rows):
            same = [row for row in self.rows if row.mode == mode]
            if len(same) > 1:
                queries = str(sum(row.queries for row in same))
                self._line("mean", "", mode, queries, self._numbers(mean([row.metrics for row in same])), "")

    def _line(self, name: str, language: str, mode: str, queries: str, values: list[str], time: str) -> None:
        numbers = "".join(f" {value:>9}" for value in values)
        self.stdout.write(f"{name:<24} {language:<4} {mode:<8} {queries:>11}{numbers} {time:>7}")

    def _numbers(self, metrics: dict[str, float]) -> list[str]:
        return [f"{metrics[name]:.4f}" if name in metrics else "–" for name in self.columns]

    def _write(self, path: Path) -> None:
        told = {
            "k": self.k,
            "seed": self.seed,
            **self.options,
            "rows": [asdict(row) for row in self.rows],
            "queries": self.each,
        }
        path.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def _hold(self, gate: dict[str, float]) -> None:
        for row in self.rows:
            for name, least in gate.items():
                if not row.metrics.get(name, 1.0) >= least:  # (answers: where there are any)
                    at = " ".join(part for part in (row.set, row.language, row.mode) if part)
                    self.failures.append(f"{at}: {name} is {row.metrics[name]:.4f}, below {least}")
        if self.failures:
            raise CommandError("\n".join(self.failures))


def _tenant(slug: str) -> UUID:
    tenant_id = tenancy.tenant_id_for(slug)
    with tenancy.scope(tenant_id):
        if not Tenant.objects.filter(id=tenant_id).exists():
            raise CommandError(f"There is no tenant {slug!r}.")
    return tenant_id


def _read(paths: list[Path], languages: str | None) -> list[LabelledSet]:
    try:
        found = [labelled for path in paths for labelled in sets.read(path)]
    except (OSError, ValueError) as error:
        raise CommandError(str(error))
    if languages is not None:
        found = [labelled for labelled in found if labelled.language in languages.split(",")]
    if not found:
        raise CommandError(f"No set has queries in {languages}.")
    return found
