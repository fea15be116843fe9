//! Which metrics a model and its data allow.
//!
//! Owns: what fits what, and what is measured where nothing is listed. Must not know: how a metric is computed.
//! Invariant: whatever passes here can be measured; whatever cannot is refused with the place where it was asked for.

use super::NEIGHBOURS;
use crate::network::HeadKind;
use crate::recipe::{GateSpec, Metric, Refusal};

/// What is known of a model and its evaluation's data.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// What comes out of the model.
    pub head: HeadKind,
    /// Classes of a classifier.
    pub classes: usize,
    /// Sequences of the data.
    pub sequences: usize,
    /// Tokens of the longest.
    pub longest: usize,
    /// True where every sequence has its label.
    pub is_labelled: bool,
}

/// Every metric that some model of this kind allows, in the order of a report.
fn family(head: HeadKind) -> &'static [Metric] {
    match head {
        HeadKind::NextToken => &[
            Metric::Perplexity,
            Metric::Kl,
            Metric::Top1Agreement,
            Metric::LayerError,
        ],
        HeadKind::Classes => &[
            Metric::Accuracy,
            Metric::Kl,
            Metric::Top1Agreement,
            Metric::LayerError,
        ],
        HeadKind::Embedding => &[Metric::Cosine, Metric::Retrieval, Metric::LayerError],
    }
}

impl Subject {
    /// What to measure: what was asked for, or everything that fits but the errors of layers.
    pub fn metrics(&self, asked: &[Metric]) -> Result<Vec<Metric>, Vec<Refusal>> {
        let refusals: Vec<Refusal> = (0..)
            .zip(asked)
            .filter_map(|(i, metric): (usize, _)| {
                let (code, detail) = self.misfit(*metric)?;
                Some(Refusal::new(format!("/evaluation/metrics/{i}"), code, detail))
            })
            .collect();
        if !refusals.is_empty() {
            return Err(refusals);
        }
        if !asked.is_empty() {
            return Ok(asked.to_vec());
        }
        let usual = || family(self.head).iter().filter(|m| **m != Metric::LayerError);
        let fitting: Vec<Metric> = usual().copied().filter(|m| self.misfit(*m).is_none()).collect();
        match usual().find_map(|metric| self.misfit(*metric)) {
            Some((code, detail)) if fitting.is_empty() => {
                Err(vec![Refusal::new("/evaluation", code, detail)])
            }
            _ => Ok(fitting),
        }
    }

    /// Refuses gates on what will not be measured: they would never close.
    pub fn check_gates(&self, gates: &GateSpec, metrics: &[Metric]) -> Result<(), Vec<Refusal>> {
        let refusals: Vec<Refusal> = gates
            .needs()
            .into_iter()
            .filter(|(_, metric)| !metrics.contains(metric))
            .map(|(field, metric)| {
                let why = self.misfit(metric).map_or_else(
                    || format!("add {} to evaluation.metrics", metric.name()),
                    |(_, why)| why,
                );
                let detail = format!("{field} needs the metric {}: {why}", metric.name());
                Refusal::new(format!("/gates/{field}"), "gate_without_metric", detail)
            })
            .collect();
        if refusals.is_empty() {
            Ok(())
        } else {
            Err(refusals)
        }
    }

    /// Why a metric cannot be measured.
    fn misfit(&self, metric: Metric) -> Option<(&'static str, String)> {
        let name = metric.name();
        if !family(self.head).contains(&metric) {
            let what = match self.head {
                HeadKind::NextToken => "predicts the next token",
                HeadKind::Classes => "classifies sequences",
                HeadKind::Embedding => "embeds sequences",
            };
            let fitting: Vec<&str> = family(self.head).iter().map(|m| m.name()).collect();
            let detail = format!(
                "{name} does not fit a model that {what}; metrics that do are {}",
                fitting.join(", ")
            );
            return Some(("metric_does_not_fit", detail));
        }
        match metric {
            Metric::LayerError => None,
            _ if self.head == HeadKind::NextToken && self.longest < 2 => Some((
                "dataset_too_short",
                format!("{name} needs a sequence of two tokens or more, and the dataset has none"),
            )),
            _ if self.head == HeadKind::Classes && self.classes < 2 => Some((
                "metric_does_not_fit",
                format!("{name} needs classes, and this model answers with one number; layer_error fits"),
            )),
            Metric::Accuracy if !self.is_labelled => Some((
                "missing_labels",
                "accuracy needs a label in every record of the dataset: give rows with a label, or leave accuracy out"
                    .to_owned(),
            )),
            Metric::Retrieval if self.sequences < NEIGHBOURS + 2 => Some((
                "dataset_too_short",
                format!(
                    "retrieval compares the {NEIGHBOURS} nearest of the other sequences, so it needs {} sequences or \
                     more; there are {}",
                    NEIGHBOURS + 2,
                    self.sequences
                ),
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECODER: Subject = Subject {
        head: HeadKind::NextToken,
        classes: 0,
        sequences: 40,
        longest: 100,
        is_labelled: true,
    };
    const CLASSIFIER: Subject = Subject {
        head: HeadKind::Classes,
        classes: 3,
        ..DECODER
    };
    const EMBEDDER: Subject = Subject {
        head: HeadKind::Embedding,
        ..DECODER
    };

    #[test]
    fn nothing_listed_is_what_fits() {
        use Metric::{Accuracy, Cosine, Kl, Perplexity, Retrieval, Top1Agreement};
        let usual = |subject: Subject| subject.metrics(&[]).unwrap();
        assert_eq!(usual(DECODER), [Perplexity, Kl, Top1Agreement]);
        assert_eq!(usual(EMBEDDER), [Cosine, Retrieval]);
        assert_eq!(usual(CLASSIFIER), [Accuracy, Kl, Top1Agreement]);
        let unlabelled = Subject {
            is_labelled: false,
            ..CLASSIFIER
        };
        assert_eq!(usual(unlabelled), [Kl, Top1Agreement]);
        let few = Subject {
            sequences: 11,
            ..EMBEDDER
        };
        assert_eq!(usual(few), [Cosine]);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        let one = Subject {
            classes: 1,
            ..CLASSIFIER
        };
        for (subject, asked, at, code, says) in [
            (
                EMBEDDER,
                vec![Metric::Cosine, Metric::Perplexity],
                "/evaluation/metrics/1",
                "metric_does_not_fit",
                "cosine, retrieval, layer_error",
            ),
            (
                DECODER,
                vec![Metric::Accuracy],
                "/evaluation/metrics/0",
                "metric_does_not_fit",
                "next token",
            ),
            (one, vec![], "/evaluation", "metric_does_not_fit", "one number"),
        ] {
            let refusals = subject.metrics(&asked).unwrap_err();
            assert_eq!((refusals[0].pointer.as_str(), refusals[0].code), (at, code));
            assert!(refusals[0].detail.contains(says), "{}", refusals[0].detail);
        }
    }

    #[test]
    fn a_gate_needs_what_is_measured() {
        let gates = GateSpec {
            max_perplexity_increase: Some(0.01),
            min_cosine: Some(0.9),
            ..GateSpec::default()
        };
        let metrics = EMBEDDER.metrics(&[]).unwrap();
        let refusals = EMBEDDER.check_gates(&gates, &metrics).unwrap_err();
        assert_eq!(refusals.len(), 1);
        assert_eq!(refusals[0].pointer, "/gates/max_perplexity_increase");
        assert!(
            refusals[0].detail.contains("does not fit"),
            "{}",
            refusals[0].detail
        );
    }
}
