"""Reports and analyses: their figures as attributes, and as tables in notebooks and pandas.

Owns: what is shown of a report without the server.
Must not know: where reports come from.
Invariant: every text that is shown in HTML is escaped; a figure that a report does not have is left out.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Iterable, List, Mapping, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from pandas import DataFrame

_BITS = re.compile(r"^(?:BF|F|I?Q|int|fp|nf|TQ)(\d+)", re.IGNORECASE)
_SHOWN_TENSORS = 200


class _Document:
    """A report as JSON."""

    def __init__(self, raw: Mapping[str, Any], job: str) -> None:
        self.raw = raw
        """All of it, as the server has it."""
        self.job = job
        """The job that it is of."""

    def __getitem__(self, key: str) -> Any:
        return self.raw[key]

    @property
    def engine_version(self) -> str:
        """Version of the engine that did it."""
        return str(self.raw.get("engine_version", ""))

    @property
    def tensors(self) -> List[Mapping[str, Any]]:
        """Figures of each tensor."""
        return list(self.raw.get("tensors", []))

    def to_pandas(self) -> DataFrame:
        """The tensors as a table; needs pandas."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas needs pandas: pip install pandas") from error
        table: DataFrame = pandas.DataFrame(self.tensors)
        return table


@dataclass(frozen=True)
class Measure:
    """What the evaluation measured."""

    metric: str
    before: Optional[float]
    after: float
    interval: Tuple[float, float]
    """95 % interval of `after`."""
    change: Optional[float]
    """Share by which it grew; negative if it shrank."""


class ReportView(_Document):
    """What a job changed and what it cost."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(self.raw["totals"]["parameters"])

    @property
    def source_bytes(self) -> int:
        """Bytes of the source's tensors."""
        return int(self.raw["totals"]["source_bytes"])

    @property
    def formats(self) -> List[Mapping[str, Any]]:
        """Sizes of each format that was written."""
        return list(self.raw["formats"])

    @property
    def bytes(self) -> int:
        """Bytes of all files of the first format."""
        return int(self.raw["formats"][0]["bytes"])

    @property
    def memory_bytes(self) -> int:
        """Weights of the first format as an engine holds them once they are loaded; 0 where the server did not say."""
        return int(self.raw["formats"][0].get("memory_bytes", 0))

    @property
    def sparse(self) -> Optional[Mapping[str, Any]]:
        """What pruned tensors take in layouts of sparse kernels, of a job that pruned some."""
        return self.raw.get("sparse")

    @property
    def compression_ratio(self) -> float:
        """Bytes of the source's tensors by those of the result."""
        return float(self.raw["formats"][0]["compression_ratio"])

    @property
    def bits_per_weight(self) -> float:
        return float(self.raw["formats"][0]["bits_per_weight"])

    @property
    def stages(self) -> List[Mapping[str, Any]]:
        """Time and memory of each stage."""
        return list(self.raw.get("stages", []))

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of all stages."""
        return float(sum(stage["seconds"] for stage in self.stages))

    @property
    def peak_memory_bytes(self) -> int:
        """Highest resident memory."""
        return max((int(stage["peak_rss_bytes"]) for stage in self.stages), default=0)

    @property
    def measures(self) -> List[Measure]:
        """What was measured, of a job with an evaluation."""
        entries = (self.raw.get("quality") or {}).get("measures", [])
        return [
            Measure(m["metric"], m.get("before"), m["after"], (m["interval"][0], m["interval"][1]), m.get("change"))
            for m in entries
        ]

    def measure(self, metric: str) -> Optional[Measure]:
        """One measure, e.g. `perplexity` or `kl`."""
        return next((measure for measure in self.measures if measure.metric == metric), None)

    @property
    def allocation(self) -> Optional[Mapping[str, Any]]:
        """What a budget chose, of a job with one."""
        return self.raw.get("allocation")

    @property
    def warnings(self) -> List[str]:
        return list(self.raw.get("warnings", []))

    def __repr__(self) -> str:
        kept = [f"{self.bytes:,} bytes", f"{self.compression_ratio:.2f}x", f"{self.bits_per_weight:.3f} bits a weight"]
        kept += [f"{measure.metric} {measure.after:.5g}" for measure in self.measures]
        return f"<Report of {self.job}: {', '.join(kept)}>"

    def _repr_html_(self) -> str:
        """A summary for notebooks; `html()` is the whole."""
        rows = [("Bytes", f"{self.source_bytes:,} → {self.bytes:,}"),
                ("Ratio", f"{self.compression_ratio:.2f}"),
                ("Bits a weight", f"{self.bits_per_weight:.3f}")]  # fmt: skip
        rows += [(measure.metric, _measured(measure)) for measure in self.measures]
        rows += [("Time", f"{self.seconds:.1f} s"), ("Peak memory", f"{self.peak_memory_bytes / 2**20:,.0f} MiB")]
        rows += [("Warning", warning) for warning in self.warnings]
        title = f"{self.raw.get('model', {}).get('architecture') or 'Model'}: {_recipe_name(self.raw.get('recipe'))}"
        return _section(title, _table(rows) + _bars(self._bars()))

    def _bars(self) -> List[Tuple[str, str, float, int]]:
        """Name, kind, bits and weights of each tensor."""
        chosen = {t["name"]: t for t in (self.allocation or {}).get("tensors", [])}
        found = []
        for tensor in self.tensors:
            exact = chosen.get(tensor["name"])
            bits = 8 * exact["bytes"] / exact["parameters"] if exact else code_bits(tensor["kind"])
            if bits is not None:
                found.append((tensor["name"], tensor["kind"], bits, int(tensor["parameters"])))
        return found


class AnalysisView(_Document):
    """What a model's weights are, and what each preset would make of them."""

    @property
    def model(self) -> Mapping[str, Any]:
        """Figures of the whole model."""
        return dict(self.raw["model"])

    @property
    def presets(self) -> List[Mapping[str, Any]]:
        """What each preset would come to."""
        return list(self.raw["presets"])

    @property
    def refused_presets(self) -> List[Mapping[str, Any]]:
        """Presets that the model cannot have, with the reason."""
        return list(self.raw["refused_presets"])

    def __repr__(self) -> str:
        return f"<Analysis of {self.job}: {self.model['parameters']:,} weights, {len(self.presets)} presets fit>"

    def _repr_html_(self) -> str:
        head = ("preset", "bytes", "bits a weight", "SNR, dB", "to the bound, dB")
        rows = [
            (p["preset"], f"{p['bytes']:,}", f"{p['bits_per_weight']:.3f}", _maybe(p, "snr_db"), _maybe(p, "gap_db"))
            for p in self.presets
        ]
        return _section(f"{self.model['parameters']:,} weights, {self.model['bytes']:,} bytes", _table(rows, head))


def code_bits(kind: str) -> Optional[float]:
    """Bits of a weight's code, by the name of its kind: 4 of `Q4_K` or `int4 g64`, 16 of `BF16`."""
    found = _BITS.match(kind)
    return float(found.group(1)) if found else None


def _measured(measure: Measure) -> str:
    before = f"{measure.before:.5g} → " if measure.before is not None else ""
    return f"{before}{measure.after:.5g} ({measure.interval[0]:.5g} to {measure.interval[1]:.5g})"


def _maybe(entry: Mapping[str, Any], key: str) -> str:
    figure = entry.get(key)
    return "" if figure is None else f"{figure:.1f}"


def _recipe_name(recipe: Any) -> str:
    if not isinstance(recipe, Mapping):
        return str(recipe)
    return str(recipe.get("preset") or ", ".join(str(stage.get("technique")) for stage in recipe.get("stages", [])))


def _section(title: str, body: str) -> str:
    return f'<div style="font-family:sans-serif;font-size:13px"><b>{escape(title)}</b>{body}</div>'


def _table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _bars(tensors: Sequence[Tuple[str, str, float, int]]) -> str:
    """One bar a tensor, as high as its bits and as wide as its weights: the area is what it takes."""
    # Norms keep 32 bits and are too narrow to be seen: they would only make everything else low. And a model of
    # thousands of tensors must not make a notebook of megabytes.
    least = sum(tensor[3] for tensor in tensors) / 2000
    wide = [at for at, tensor in enumerate(tensors) if tensor[3] >= least]
    shown = sorted(wide, key=lambda at: -tensors[at][3])[:_SHOWN_TENSORS]
    weights = sum(tensors[at][3] for at in shown)
    if not weights:
        return ""
    most = max(tensors[at][2] for at in shown)
    left, drawn = 0.0, []
    for at in sorted(shown):
        name, kind, bits, parameters = tensors[at]
        width, height = 600 * parameters / weights, 80 * bits / most
        label = escape(f"{name}: {kind}, {bits:.3g} bits, {parameters:,} weights", quote=True)
        hue = 210 - 150 * bits / most
        drawn.append(
            f'<rect x="{left:.2f}" y="{80 - height:.2f}" width="{max(width, 0.2):.2f}" height="{height:.2f}" '
            f'fill="hsl({hue:.0f},60%,55%)"><title>{label}</title></rect>'
        )
        left += width
    return (
        f'<svg width="600" height="80" role="img" aria-label="Bits of each tensor, at most {most:.3g}">{"".join(drawn)}'
        f"</svg><div>bits of each tensor, at most {most:.3g}; as wide as it has weights</div>"
    )
