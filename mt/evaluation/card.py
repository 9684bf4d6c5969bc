"""The model card: what a bundle is, in words."""

from __future__ import annotations

from collections.abc import Sequence

from mt.evaluation.scores import SetScores


def model_card(
    languages: tuple[str, str],
    facts: Sequence[tuple[str, str]],
    sets: Sequence[SetScores],
    recipe: str,
) -> str:
    """Write the Markdown card of a bundle.

    Args:
        languages: Source and target language code.
        facts: What it was made from, by name.
        sets: Scores on the test sets; empty while training goes on.
        recipe: The resolved recipe, YAML.
    """
    about = (
        "A recurrent encoder-decoder with attention. The folder holds weights, a tokenizer and\n"
        "configuration only: loading it runs no code, and it holds no training text."
    )
    lines = []
    if sets:
        lines += ["| test set | sentences | metric | score | signature |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(one.name)} | {one.sentences} "
            f"| {s.metric} | {s.score:.2f} | `{s.signature}` |"
            for one in sets
            for s in one.scores
        ]
        lines.append("")
    title = f"Translation engine {languages[0]} to {languages[1]}"
    command = 'echo "…" | mt translate THIS_FOLDER'
    return card(title, about, command, facts, "\n".join(lines), recipe)


def card(
    title: str,
    about: str,
    command: str,
    facts: Sequence[tuple[str, str]],
    scores: str,
    recipe: str,
) -> str:
    """Write the Markdown card of any bundle.

    Args:
        title: Its headline.
        about: What it is.
        command: That uses it.
        facts: What it was made from, by name.
        scores: On the test sets, Markdown; empty while training goes on.
        recipe: The resolved recipe, YAML.
    """
    lines = [
        f"# {title}",
        "",
        about,
        "",
        "```",
        command,
        "```",
        "",
        "| | |",
        "|---|---|",
        *(f"| {_cell(name)} | {_cell(value)} |" for name, value in facts),
        "| Licence | that of the training text applies to what is derived from it; see Data |",
        "",
    ]
    if scores:
        lines.append(scores)
    return "\n".join([*lines, "## Recipe", "", "```yaml", recipe.rstrip("\n"), "```", ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
