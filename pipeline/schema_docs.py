"""`docs/tables.md`, made from the records: `python -m pipeline.schema_docs > docs/tables.md`.

A test holds the file to the code, which also pins the schemas.
"""

import ast
import inspect
import itertools

from pipeline import reasons, records
from pipeline.records import RECORDS, SCHEMA_VERSION, Record, arrow_schema
from pipeline.tables import CROSSWALK_COLUMNS


def field_docs(record: type) -> dict[str, str]:
    """The docstring under each field of a dataclass; empty where there is none."""
    (definition,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in itertools.pairwise([*definition.body, None]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            has_doc = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            found[node.target.id] = " ".join(str(after.value.value).split()) if has_doc else ""  # type: ignore[union-attr]
    return found


def _section(record: type[Record]) -> list[str]:
    docs = field_docs(record)
    lines = [f"## `{record.table}`", "", " ".join((record.__doc__ or "").split()), ""]
    lines += [
        f"Key: {', '.join(f'`{name}`' for name in record.key)}",
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    for field in arrow_schema(record):
        kind = str(field.type).replace("child 0, ", "").replace("element: ", "")
        null = ", may be null" if field.nullable else ""
        lines.append(f"| `{field.name}` | `{kind}`{null} | {docs.get(field.name, '')} |")
    return [*lines, ""]


EXAMPLE = """SELECT key, crosswalk.uid, c.column1 AS cap3d
FROM 'DATA/shards/samples.parquet' JOIN crosswalk USING (asset_id)
    JOIN read_csv('Cap3D_automated_Objaverse_full.csv', header = false) AS c ON c.column0 = cap3d_key"""
"""A query over the cross-walk and a list of somebody else's."""


def _crosswalk() -> list[str]:
    lines = [
        "## `crosswalk` (a view)",
        "",
        "By which names assets are known elsewhere: to join lists of captions, scores or choices that go by other ids. "
        "One row an asset (more if it was listed under several names), made of `assets` and `items`. "
        "`mv4d stats --sql` knows it, and `--format csv` writes it out.",
        "",
        "| column | meaning |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in CROSSWALK_COLUMNS.items()]
    return [*lines, "", "```sql", EXAMPLE, "```", ""]


def tables_page() -> str:
    """The whole page."""
    lines = [
        "# Tables",
        "",
        f"Made from `pipeline/records.py` by `python -m pipeline.schema_docs`; schema version {SCHEMA_VERSION}.",
        "Each table is a folder of Parquet files, `DATA/tables/<name>/`. Every one has two more columns:",
        "`made_by` (`stage@settings_id`) and `made_from` (the id of the input). `mv4d stats --sql` and",
        "`mv4d stats --shell` show them as views.",
        "",
    ]
    for record in RECORDS:
        lines += _section(record)
    lines += _crosswalk()
    lines += [
        "## Reasons",
        "",
        inspect.cleandoc(reasons.__doc__ or ""),
        "",
        "| reason | meaning | what to do |",
        "|---|---|---|",
    ]
    lines += [f"| `{name}` | {meaning} | {advice} |" for name, (meaning, advice) in reasons.REASONS.items()]
    parts = [records.Part, records.SamplePart]
    lines += ["", "## Nested", ""]
    for part in parts:
        names = ", ".join(f"`{name}` {doc}".strip() for name, doc in field_docs(part).items())
        lines.append(f"- {part.__name__}: {names}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(tables_page(), end="")
