"""The text that a finished run prints, from its record alone."""

from __future__ import annotations

from rosa.records.schema import RULES, Generation, Record, by_split
from rosa.utils.formatting import MIB, aligned, written


def headline(record: Record) -> str:
    """The headline score of a finished run at its best and last epoch."""
    selection = record["metrics"]["selection"]
    shown = []
    for rule in RULES:
        value = by_split(record["metrics"][rule])[selection["split"]][selection["metric"]]
        shown.append(f"{rule} {written(selection['metric'], value)}")
    return f"{selection['metric']} {', '.join(shown)}"


def summary(record: Record) -> str:
    """All metrics at the best and the last epoch, trainable parameters, costs and warnings."""
    best, last = record["metrics"]["best"], record["metrics"]["last"]
    rows = [("split", "metric", f"best (epoch {best['epoch']:.4g})", f"last (epoch {last['epoch']:.4g})")]
    for split, scores in by_split(best).items():
        for metric, value in scores.items():
            rows.append((split, metric, written(metric, value), written(metric, by_split(last)[split][metric])))
    lines = aligned(rows)
    if record.get("generation"):
        lines += _tried(record["generation"])
    params, costs = record["params"], record["costs"]
    lines.append(
        f"trained {params['trainable']:,} parameters and {params['head']:,} in the head, of {params['total']:,}"
    )
    step, memory = costs.get("seconds_per_step_median"), costs.get("device_bytes") or costs.get("host_bytes")
    if step is not None and memory is not None:
        lines.append(
            f"{costs['steps']} updates in {costs['seconds_total']:.0f} s, {1000 * step:.0f} ms each (median); "
            f"peak memory {memory / MIB:.0f} MiB"
        )
    lines += [f"warning: {warning}" for warning in record["warnings"]]
    return "\n".join(lines)


def _tried(generation: Generation) -> list[str]:
    """The scores of the decoded test split, as the official scorer writes them."""
    rows = [
        (generation["split"], name, "missing" if value is None else f"{value:.4f}")
        for name, value in generation["scores"].items()
    ]
    decoded = f"{generation['prompts']} prompts decoded by the {generation['weights']} epoch"
    return [*aligned(rows), f"{decoded}: {generation['hypotheses']['file']}"]
