//! Webhooks: who is told what happens to jobs, and what became of each message.
//!
//! Owns: a webhook, its secret, the types of messages, a message and its tries, the schedule of those.
//! Must not know: sockets, rows.
//! Invariant: a message has one id and one body over all its tries; its secret is never shown by `Debug`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{DeliveryId, JobState, Tenant, WebhookId};

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// A job is in another state.
    Job(JobState),
    /// Somebody asked for a test.
    Test,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Job(JobState::Queued),
        Self::Job(JobState::Running),
        Self::Job(JobState::Succeeded),
        Self::Job(JobState::Failed),
        Self::Job(JobState::Cancelled),
        Self::Test,
    ];

    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job(JobState::Queued) => "job.queued",
            Self::Job(JobState::Running) => "job.running",
            Self::Job(JobState::Succeeded) => "job.succeeded",
            Self::Job(JobState::Failed) => "job.failed",
            Self::Job(JobState::Cancelled) => "job.cancelled",
            Self::Test => "webhook.test",
        }
    }

    /// The words of several.
    pub fn words(topics: &[Self], between: &str) -> String {
        let words: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        words.join(between)
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let found = Self::ALL.into_iter().find(|topic| topic.as_str() == text);
        found.ok_or(TopicError)
    }
}

/// The text is no type of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a type of message")]
pub struct TopicError;

/// What signs messages. It has to be kept as it is: both sides compute the same signature with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

const SECRET_PREFIX: &str = "whsec_";

/// The text is no secret of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and 24 to 64 bytes as base64")]
pub struct SecretError;

impl Secret {
    /// Of random bytes.
    pub fn of(bytes: [u8; 32]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes that sign.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As its owner writes it down.
    pub fn text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(SecretError)?;
        let bytes = STANDARD.decode(encoded).map_err(|_e| SecretError)?;
        if (24..=64).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(SecretError)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Where messages of a tenant go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where to.
    pub url: String,
    /// What the user says of it.
    pub description: Option<String>,
    /// Which messages it gets; all, if none is named.
    pub topics: Vec<Topic>,
    /// What signs them.
    pub secret: Secret,
    /// What signs them too, until then.
    pub old_secret: Option<(Secret, OffsetDateTime)>,
    /// When and why nothing is sent any more.
    pub disabled: Option<(OffsetDateTime, String)>,
    /// When something last got through.
    pub last_success_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its owner last changed it.
    pub updated_at: OffsetDateTime,
}

impl Webhook {
    /// Whether it gets messages of this type.
    pub fn wants(&self, topic: Topic) -> bool {
        wants(&self.topics, topic)
    }
}

/// Whether a choice includes this type: one that names none includes all.
pub fn wants(chosen: &[Topic], topic: Topic) -> bool {
    chosen.is_empty() || chosen.contains(&topic)
}

/// What its owner changes; nothing where nothing is said.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Where to.
    pub url: Option<String>,
    /// What the user says of it, or nothing any more.
    pub description: Option<Option<String>>,
    /// Which messages it gets.
    pub topics: Option<Vec<Topic>>,
    /// On or off.
    pub enabled: Option<bool>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be sent, or sent again.
    Pending,
    /// It got through.
    Succeeded,
    /// It will not be tried again by itself.
    Failed,
}

impl DeliveryState {
    /// The word used everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Pending, Self::Succeeded, Self::Failed];
        all.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// A message to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same over all tries.
    pub id: DeliveryId,
    /// Where it goes.
    pub webhook: WebhookId,
    /// What it is about.
    pub topic: Topic,
    /// The body, to the byte.
    pub body: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is tried next, while it waits.
    pub due_at: Option<OffsetDateTime>,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// What came of each try, oldest first.
    pub tries: Vec<Try>,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// Counts from 1.
    pub number: u32,
    /// When it began.
    pub at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// What the other side answered.
    pub status: Option<u16>,
    /// The first bytes of its answer.
    pub response: Option<String>,
    /// Why there was no answer, or none that counts.
    pub error: Option<String>,
}

/// A message that is due, in hand.
#[derive(Debug, Clone)]
pub struct Due {
    /// The right to say what became of it.
    pub ticket: Ticket,
    /// Whose it is.
    pub tenant: Tenant,
    /// Where it goes.
    pub url: String,
    /// What signs it: the newest first.
    pub secrets: Vec<Secret>,
    /// The body.
    pub body: String,
    /// Counts tries from 1, replays left out.
    pub step: u32,
    /// Counts all tries from 1.
    pub number: u32,
}

/// One claim of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The message.
    pub delivery: DeliveryId,
    /// Where it goes.
    pub webhook: WebhookId,
    /// The claim's number.
    pub fence: u64,
}

/// What becomes of a message after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It got through.
    Done,
    /// It is tried again after this wait.
    Again(Duration),
    /// It is given up.
    GiveUp,
    /// The other side wants no more messages at all.
    Gone,
}

impl Next {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "succeeded",
            Self::Again(_) => "retried",
            Self::GiveUp => "failed",
            Self::Gone => "gone",
        }
    }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// Seconds before each try, counted from the end of the one before.
const WAITS: [u64; 10] = [
    0,
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
];
/// Longest wait that the other side may ask for.
const LONGEST: Duration = Duration::from_secs(24 * HOUR);
/// Waits grow by up to this part, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// What becomes of a message whose try number `step` came to this status, or to no answer. `chance` is a random number
/// in [0, 1).
pub fn next(step: u32, status: Option<u16>, retry_after: Option<Duration>, chance: f64) -> Next {
    match status {
        Some(200..300) => return Next::Done,
        Some(410) => return Next::Gone,
        _ => {}
    }
    let Some(wait) = WAITS.get(step as usize) else {
        return Next::GiveUp;
    };
    let wait = Duration::from_secs(*wait).mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0));
    let asked = retry_after.filter(|_| matches!(status, Some(429 | 503)));
    Next::Again(asked.map_or(wait, |asked| asked.clamp(Duration::from_secs(1), LONGEST)))
}

/// The body of a message.
pub fn body(topic: Topic, at: OffsetDateTime, data: &Value) -> String {
    let at = at.format(&Rfc3339).unwrap_or_default();
    json!({"type": topic.as_str(), "timestamp": at, "data": data}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_goes_on_for_three_days_and_ends() {
        let mut hours = 0.0;
        for step in 1..10 {
            let Next::Again(wait) = next(step, Some(500), None, 0.0) else {
                panic!("gave up at {step}")
            };
            hours += wait.as_secs_f64() / 3600.0;
        }
        assert!((75.0..76.0).contains(&hours), "{hours}");
        assert_eq!(next(10, Some(500), None, 0.0), Next::GiveUp);
        assert_eq!(next(1, None, None, 1.0), Next::Again(Duration::from_secs(6)));
    }

    #[test]
    fn answers_mean_what_they_say() {
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!(next(1, Some(204), None, 0.0), Next::Done);
        assert_eq!(next(1, Some(301), None, 0.0), Next::Again(Duration::from_secs(5)));
        assert_eq!(next(1, Some(410), None, 0.0), Next::Gone);
        assert_eq!(
            next(1, Some(503), secs(90), 0.5),
            Next::Again(Duration::from_secs(90))
        );
        assert_eq!(
            next(1, Some(429), secs(0), 0.5),
            Next::Again(Duration::from_secs(1))
        );
        assert_eq!(next(1, Some(429), secs(u64::MAX), 0.5), Next::Again(LONGEST));
        assert_eq!(
            next(1, Some(500), secs(90), 0.0),
            Next::Again(Duration::from_secs(5))
        );
        assert_eq!(next(10, Some(429), secs(1), 0.0), Next::GiveUp);
    }

    #[test]
    fn secrets_read_back_and_are_not_shown() {
        let secret = Secret::of([7; 32]);
        assert_eq!(secret.text().parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        for wrong in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!",
        ] {
            assert_eq!(wrong.parse::<Secret>(), Err(SecretError), "{wrong}");
        }
    }

    #[test]
    fn topics_are_words() {
        for topic in Topic::ALL {
            assert_eq!(topic.as_str().parse(), Ok(topic));
            assert!(wants(&[], topic) && wants(&[topic], topic));
        }
        assert!(!wants(&[Topic::Test], Topic::Job(JobState::Failed)));
    }
}
