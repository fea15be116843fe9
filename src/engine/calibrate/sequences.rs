//! Records of a dataset to the token sequences that a model runs over.
//!
//! Owns: windows of running text, rows as they are, which of them are taken. Must not know: what they are used for.
//! Invariant: the same dataset, tokenizer, choice and seed give the same sequences.

use super::tokens::{Tokens, check_ids};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Content, ContentKind, Dataset, DatasetFormat, Label, Record};
use crate::error::{Error, Result};
use crate::kernels::random::Random;

/// Characters of running text that are tokenized at a time; cut only where no tokenizer joins across.
const PIECE: usize = 1 << 18;

/// Which sequences are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How many.
    pub num_samples: usize,
    /// Tokens of a window, and most tokens of a row.
    pub max_seq_length: usize,
    /// Drawn at random instead of the first ones.
    pub shuffle: bool,
    /// Of the draw.
    pub seed: u64,
    /// Rows of a classifier or an embedder: each text is a sequence of its own, with its special tokens.
    pub whole_rows: bool,
}

/// Token sequences.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// Token ids of each.
    pub ids: Vec<Vec<u32>>,
    /// Label of each, where the dataset has labels.
    pub labels: Vec<Label>,
}

impl Sequences {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }
}

/// The sequences of a dataset for a model whose embedding table has `vocab` rows.
pub fn sequences(model: &Checkpoint, dataset: &Dataset, choice: Choice, vocab: usize) -> Result<Sequences> {
    let tokens = match dataset.content {
        ContentKind::Ids => None,
        ContentKind::Text | ContentKind::Messages => Some(Tokens::of(model, vocab)?),
        ContentKind::Values => {
            return Err(Error::unsupported(
                "dataset_of_values",
                "this model reads token ids; the dataset holds arrays of other numbers",
            ));
        }
        ContentKind::Importance => {
            return Err(Error::unsupported(
                "dataset_is_an_imatrix",
                "the dataset is an importance matrix, and a model runs over text: name it in the option imatrix",
            ));
        }
    };
    let mut drawn = Drawn::new(choice);
    let running = dataset.format == DatasetFormat::Txt && !choice.whole_rows;
    let mut seen = 0;
    if running {
        let tokens = tokens
            .as_ref()
            .ok_or_else(|| Error::internal("text without a tokenizer"))?;
        seen = windows(dataset, tokens, &mut drawn)?;
    } else {
        for record in dataset.records() {
            let record = record?;
            for (ids, label) in rows(record, tokens.as_ref(), choice, vocab)? {
                seen += ids.len();
                drawn.offer(ids, label);
            }
            if drawn.is_full() {
                break;
            }
        }
    }
    let taken = drawn.finish();
    if taken.ids.is_empty() {
        return Err(Error::bad_input(
            "dataset_too_short",
            format!(
                "the dataset has {seen} tokens, less than one window of max_seq_length {}: give more text or a \
                 smaller max_seq_length",
                choice.max_seq_length
            ),
        ));
    }
    Ok(taken)
}

/// Consecutive windows of running text, each exactly `max_seq_length` tokens; answers how many tokens were seen.
fn windows(dataset: &Dataset, tokens: &Tokens, drawn: &mut Drawn) -> Result<usize> {
    let length = drawn.choice.max_seq_length;
    let (mut waiting, mut seen) = (Vec::new(), 0);
    for record in dataset.records() {
        let Content::Text(text) = record?.content else {
            continue;
        };
        for piece in pieces(&text, PIECE) {
            let ids = tokens.encode(piece, false)?;
            seen += ids.len();
            waiting.extend(ids);
            let whole = waiting.len() / length * length;
            for window in waiting.drain(..whole).collect::<Vec<_>>().chunks(length) {
                drawn.offer(window.to_vec(), None);
            }
            if drawn.is_full() {
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// Pieces of about `size` bytes. A single line break between two visible characters is where every tokenizer in use
/// begins a new word, so nothing changes by cutting behind it.
fn pieces(text: &str, size: usize) -> Vec<&str> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    let bytes = text.as_bytes();
    let visible = |i: usize| bytes.get(i).is_some_and(|b| !b.is_ascii_whitespace());
    while text.len() - start > size {
        let cut = (start + size..text.len()).find(|i| bytes[*i] == b'\n' && visible(i - 1) && visible(i + 1));
        let Some(cut) = cut else { break };
        pieces.push(&text[start..=cut]);
        start = cut + 1;
    }
    pieces.push(&text[start..]);
    pieces
}

type Row = (Vec<u32>, Option<Label>);

fn rows(record: Record, tokens: Option<&Tokens>, choice: Choice, vocab: usize) -> Result<Vec<Row>> {
    let label = record.label;
    let no_tokens = || Error::internal("text without a tokenizer");
    let ids = match record.content {
        Content::Ids(ids) => {
            check_ids(&ids, vocab)?;
            ids
        }
        Content::Messages(messages) => tokens.ok_or_else(no_tokens)?.encode_chat(&messages)?,
        Content::Text(text) => {
            let tokens = tokens.ok_or_else(no_tokens)?;
            match (&record.text_pair, choice.whole_rows) {
                (Some(pair), _) => tokens.encode_pair(&text, pair)?,
                (None, true) if label.is_none() => {
                    let lines = text.lines().filter(|l| !l.trim().is_empty());
                    let encoded = lines.map(|l| Ok((cut(tokens.encode(l, true)?, choice), None)));
                    return encoded.collect();
                }
                (None, special) => tokens.encode(&text, special)?,
            }
        }
        Content::Values { .. } => Vec::new(),
    };
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![(cut(ids, choice), label)])
}

/// At most `max_seq_length` tokens; where rows have special tokens, the last of them stays the last.
fn cut(mut ids: Vec<u32>, choice: Choice) -> Vec<u32> {
    let most = choice.max_seq_length;
    if ids.len() > most {
        let last = ids[ids.len() - 1];
        ids.truncate(most);
        if choice.whole_rows {
            ids[most - 1] = last;
        }
    }
    ids
}

/// Takes the first ones, or draws without replacement from all.
struct Drawn {
    choice: Choice,
    taken: Vec<(u64, Row)>,
    offered: u64,
    random: Random,
}

impl Drawn {
    fn new(choice: Choice) -> Self {
        Self {
            choice,
            taken: Vec::new(),
            offered: 0,
            random: Random::new(choice.seed),
        }
    }

    /// Nothing that comes now can change the outcome.
    fn is_full(&self) -> bool {
        !self.choice.shuffle && self.taken.len() >= self.choice.num_samples
    }

    fn offer(&mut self, ids: Vec<u32>, label: Option<Label>) {
        let at = self.offered;
        self.offered += 1;
        if self.taken.len() < self.choice.num_samples {
            self.taken.push((at, (ids, label)));
        } else if self.choice.shuffle {
            // Reservoir sampling: each of the offered ones stays with the same probability.
            let slot = self.random.below(self.offered) as usize;
            if let Some(old) = self.taken.get_mut(slot) {
                *old = (at, (ids, label));
            }
        }
    }

    fn finish(mut self) -> Sequences {
        self.taken.sort_by_key(|(at, _)| *at);
        let mut sequences = Sequences::default();
        let labelled = self.taken.iter().all(|(_, (_, label))| label.is_some());
        for (_, (ids, label)) in self.taken {
            sequences.ids.push(ids);
            if labelled {
                sequences.labels.extend(label);
            }
        }
        sequences
    }
}
