"""The page docs/records.md, written out from the types and comments in :mod:`rosa.records.schema`."""

from __future__ import annotations

import ast
import inspect
import typing

from rosa.records import schema

WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "None": "null",
}
"""Python's names of JSON's types, in words."""


def page() -> str:
    """The whole page: an introduction, then a section for the record and for every object in it."""
    module = ast.parse(inspect.getsource(schema))
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    aliases = _aliases(module)
    sections, order = [], ["Record"]
    for place, name in enumerate(order, 1):  # grows while it is read: the parts of an object follow it
        if name in aliases:
            sections.append(f"## {name}\n\n{aliases[name]}\n")
            continue
        met: list[str] = []
        rows = ["| key | value | |", "|---|---|---|"]
        for key, annotation, comment in _keys(classes, name):
            kind = _written(annotation, met, aliases)
            optional = ", optional" if key in getattr(schema, name).__optional_keys__ else ""
            rows.append(f"| `{key}` | {kind}{optional} | {comment} |")
        order[place:place] = [part for part in dict.fromkeys(met) if part not in order]
        described = _plain(ast.get_docstring(classes[name]) or "")
        sections.append(f"## {name}\n\n{described}\n\n" + "\n".join(rows) + "\n")
    introduction = (
        "# Records\n\n"
        "The keys of a run's `record.json`. Made by `python scripts/make_records_page.py` from\n"
        "[rosa/records/schema.py](../rosa/records/schema.py), whose types the code that writes and reads records "
        "uses.\n\n"
    )
    about = (ast.get_docstring(module) or "").partition("\n\n")[2].replace("``", "`")
    return introduction + about + "\n\n" + "\n".join(sections)


def _aliases(module: ast.Module) -> dict[str, str]:
    """The aliases of types that have a comment, with it."""
    found = {}
    for node, after in zip(module.body, module.body[1:], strict=False):
        is_alias = isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
        if is_alias and isinstance(after, ast.Expr):
            found[ast.unparse(node.target)] = _comment(after)  # type: ignore[attr-defined]  # an AnnAssign has one
    return found


def _keys(classes: dict[str, ast.ClassDef], name: str) -> list[tuple[str, ast.expr, str]]:
    """Key, annotation and comment of each key of a class, those of its base class first."""
    found = []
    for base in classes[name].bases:
        if ast.unparse(base) in classes:
            found += _keys(classes, ast.unparse(base))
    body = classes[name].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            assert isinstance(after, ast.Expr), f"{name}.{ast.unparse(node.target)} has no comment"
            found.append((ast.unparse(node.target), node.annotation, _comment(after)))
    return found


def _comment(node: ast.Expr) -> str:
    assert isinstance(node.value, ast.Constant), f"line {node.lineno} of the schema is not a comment"
    return _plain(str(node.value.value))


def _plain(comment: str) -> str:
    """A comment as one line of Markdown."""
    return " ".join(comment.split()).replace("``", "`").replace(":func:", "")


def _written(annotation: ast.expr, met: list[str], aliases: dict[str, str]) -> str:
    """An annotation in words, with links to the sections of the types in it, which are added to ``met``."""
    if isinstance(annotation, ast.BinOp):
        return f"{_written(annotation.left, met, aliases)} or {_written(annotation.right, met, aliases)}"
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice.elts[-1] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
        of = _written(inner, met, aliases)
        return {"NotRequired": of, "list": f"list of {of}", "dict": f"by name: {of}"}[ast.unparse(annotation.value)]
    name = ast.unparse(annotation)
    if name in WORDS:
        return WORDS[name]
    choices = typing.get_args(getattr(schema, name))
    if choices and name not in aliases:
        return ", ".join(f"`{choice}`" for choice in choices)
    met.append(name)
    return f"[{name}](#{name.lower()})"
